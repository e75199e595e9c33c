"""Time the CPU ops against torchvision's in one process; see README.md in this folder for the protocol.

    python benchmarks/ops_cpu.py [--threads 2] [--repeats 15] [--only nms] [--clock wall]

3x3 convolutions with the Winograd algorithm are compared with torch's, which are oneDNN's.
"""

from __future__ import annotations

import argparse
import copy

import timing
import torch
import torchvision

from maskrcnn_benchmark.fast.winograd_conv import WinogradConv2d
from maskrcnn_benchmark.layers import batched_nms, roi_align, sigmoid_focal_loss
from maskrcnn_benchmark.structures.paste_masks import paste_rles


def boxes_in(n: int, extent: float, side: float) -> torch.Tensor:
    corner = torch.rand(n, 2) * extent
    return torch.cat([corner, corner + torch.rand(n, 2) * side], dim=1)


def nms_cases():
    tv = torchvision.ops
    for n in (1000, 5000, 20_000):
        boxes, scores = boxes_in(n, 1000, 100), torch.rand(n)
        yield (
            f"nms, {n} boxes",
            lambda b=boxes, s=scores: batched_nms(b, s, None, 0.5),
            lambda b=boxes, s=scores: tv.nms(b, s, 0.5),
        )
    boxes, scores, labels = boxes_in(5000, 1000, 100), torch.rand(5000), torch.randint(0, 80, (5000,))
    yield (
        "batched nms, 80 classes, 5000 boxes",
        lambda: batched_nms(boxes, scores, labels, 0.5),
        lambda: tv.batched_nms(boxes, scores, labels, 0.5),
    )
    yield (
        "the same, first 100 kept",
        lambda: batched_nms(boxes, scores, labels, 0.5, max_keep=100),
        lambda: tv.batched_nms(boxes, scores, labels, 0.5)[:100],
    )


def roi_align_cases():
    maps = torch.randn(1, 256, 200, 336)
    rois = torch.cat([torch.zeros(1000, 1), boxes_in(1000, 800, 400)], dim=1)
    last = maps.contiguous(memory_format=torch.channels_last)
    half = last.bfloat16()

    def theirs(x=maps, r=rois):
        return torchvision.ops.roi_align(x, r, 7, 0.25, 2)

    yield "roi_align, 1000 ROIs, channels_last", lambda: roi_align(last, rois, 7, 0.25, 2), theirs
    yield "roi_align, 1000 ROIs, contiguous", lambda: roi_align(maps, rois, 7, 0.25, 2), theirs
    yield "roi_align, 1000 ROIs, channels_last bfloat16", lambda: roi_align(half, rois, 7, 0.25, 2), theirs
    yield (
        "roi_align, 10 ROIs, contiguous",
        lambda: roi_align(maps, rois[:10], 7, 0.25, 2),
        lambda: torchvision.ops.roi_align(maps, rois[:10], 7, 0.25, 2),
    )

    def backward_of(function, x):
        x = x.detach().requires_grad_()
        pooled = function(x, rois[:512], 7, 0.25, 2)
        grad = torch.randn(512, 256, 7, 7).to(x.dtype)
        return lambda: torch.autograd.grad(pooled, x, grad, retain_graph=True)

    reference = backward_of(torchvision.ops.roi_align, maps)
    yield "roi_align backward, 512 ROIs, channels_last", backward_of(roi_align, last), reference
    yield "roi_align backward, 512 ROIs, contiguous", backward_of(roi_align, maps), reference
    yield "roi_align backward, 512 ROIs, channels_last bfloat16", backward_of(roi_align, half), reference


def pooler_cases():
    from torchvision.ops import MultiScaleRoIAlign

    from maskrcnn_benchmark.modeling.poolers import Pooler
    from maskrcnn_benchmark.structures.bounding_box import BoxList

    scales = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
    maps = {str(i): torch.randn(1, 256, int(800 * s), int(1344 * s)) for i, s in enumerate(scales)}
    corner = torch.rand(1000, 2) * torch.tensor([900.0, 500])
    boxes = torch.cat((corner, corner + 16 * 2 ** (torch.rand(1000, 2) * 5)), dim=1).clamp(max=1343)
    boxlist = BoxList(boxes, (1344, 800))
    reference, pooler = MultiScaleRoIAlign(list(maps), 7, 2), Pooler((7, 7), scales, 2)

    def theirs(levels):
        return reference(dict(zip(maps, levels, strict=True)), [boxes], [(800, 1344)])

    def ours(levels):
        return pooler(levels, [boxlist])

    def backward_of(function, levels):
        levels = [x.detach().requires_grad_() for x in levels]
        pooled = function(levels)
        grad = torch.randn(1000, 256, 7, 7).to(pooled.dtype)
        return lambda: torch.autograd.grad(pooled, levels, grad, retain_graph=True)

    plain = list(maps.values())
    last = [x.contiguous(memory_format=torch.channels_last) for x in plain]
    half = [x.bfloat16() for x in last]
    layouts = {"channels_last": last, "contiguous": plain, "channels_last bfloat16": half}
    for name, levels in layouts.items():
        yield f"FPN pooler, 1000 ROIs, {name}", lambda x=levels: ours(x), lambda: theirs(plain)
    reference_backward = backward_of(theirs, plain)
    for name, levels in layouts.items():
        yield f"FPN pooler backward, 1000 ROIs, {name}", backward_of(ours, levels), reference_backward


def focal_loss_cases():
    logits = torch.randn(44_800, 80) - 3
    labels = torch.zeros(44_800, dtype=torch.int64)
    positive = torch.randperm(44_800)[: 44_800 * 80 // 1000]  # 0.1 % of all logits
    labels[positive] = torch.randint(1, 81, (len(positive),))
    one_hot = torch.nn.functional.one_hot(labels, 81)[:, 1:].float()
    x, half = logits.requires_grad_(), logits.detach().bfloat16().requires_grad_()

    def theirs():
        torch.autograd.grad(torchvision.ops.sigmoid_focal_loss(x, one_hot, 0.25, 2.0, reduction="sum"), x)

    def ours(logits, targets):
        return lambda: torch.autograd.grad(sigmoid_focal_loss(logits, targets, 2.0, 0.25, reduction="sum"), logits)

    work = "focal loss forward + backward"
    yield f"{work}, labels", ours(x, labels), theirs
    yield f"{work}, dense targets", ours(x, one_hot), theirs
    yield f"{work}, labels, bfloat16", ours(half, labels), theirs
    yield f"{work}, dense targets, bfloat16", ours(half, one_hot.bfloat16()), theirs


def paste_cases():
    from pycocotools import mask as coco_mask
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    width, height = 1333, 800
    sides = torch.rand(100, 2) ** 2 * torch.tensor([width, height]) * 0.6 + 16
    corners = torch.rand(100, 2) * (torch.tensor([width, height]) - sides)
    boxes = torch.cat((corners, corners + sides), dim=1)
    shapes = torch.nn.functional.interpolate(torch.rand(100, 1, 5, 5), size=(28, 28), mode="bilinear")
    masks = ((shapes - 0.5) * 8).sigmoid()

    def theirs():
        images = (paste_masks_in_image(masks, boxes, (height, width)) > 0.5)[:, 0].numpy().astype("uint8")
        return [coco_mask.encode(image.copy(order="F")) for image in images]

    yield "masks to RLEs, 100 masks in 1333 x 800", lambda: paste_rles(masks, boxes, (width, height)), theirs


def winograd_cases():
    for channels, height, width in ((256, 200, 272), (128, 200, 272), (512, 25, 34)):
        conv = torch.nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)
        fast, x = WinogradConv2d(conv), torch.randn(1, channels, height, width).to(memory_format=torch.channels_last)
        half, half_x = copy.deepcopy(conv).bfloat16(), x.bfloat16()
        work = f"3x3 convolution, {channels} channels, {height} x {width}"
        yield work, torch.no_grad()(lambda f=fast, x=x: f(x)), torch.no_grad()(lambda c=conv, x=x: c(x))
        sides = torch.no_grad()(lambda f=fast, x=half_x: f(x)), torch.no_grad()(lambda c=half, x=half_x: c(x))
        yield f"{work}, bfloat16", *sides


CASES = {
    "nms": nms_cases,
    "roi_align": roi_align_cases,
    "pooler": pooler_cases,
    "focal_loss": focal_loss_cases,
    "paste": paste_cases,
    "winograd": winograd_cases,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=15)
    parser.add_argument("--only", choices=sorted(CASES), default=None)
    arguments = parser.parse_args()
    timing.begin(arguments)
    print("| op | ours ms | theirs ms | ratio |\n|---|---|---|---|")
    for name, cases in CASES.items():
        if arguments.only in (None, name):
            for title, *sides in cases():
                mine, other = timing.medians(sides, arguments.repeats, arguments.clock)
                print(f"| {title} | {mine:.2f} | {other:.2f} | {other / mine:.1f} |", flush=True)


if __name__ == "__main__":
    main()
