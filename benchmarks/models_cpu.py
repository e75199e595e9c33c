"""Time whole detectors on the CPU against torchvision's in one process; see README.md in this folder for the protocol.

python benchmarks/models_cpu.py [--threads 2] [--repeats 5] [--only fcos] [--clock wall]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import timing
import torch
from detectors import PAIRS, find_objects, ours, settle, theirs
from torch import Tensor, nn

from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.paste_masks import paste_rles

HEIGHT, WIDTH = 800, 1088
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCORES = {"fcos": "rpn.head.cls_logits", "faster": "roi_heads.box.predictor.cls_score"}
THEIR_SCORES = {"fcos": "head.classification_head.cls_logits", "faster": "roi_heads.box_predictor.cls_score"}
BODIES = {
    "R-50": "e2e_faster_rcnn_R_50_FPN_1x.yaml",
    "R-101": "e2e_faster_rcnn_R_101_FPN_1x.yaml",
    "V-39": "vovnet/e2e_faster_rcnn_V_39_FPN_2x.yaml",
    "V-57": "vovnet/e2e_faster_rcnn_V_57_FPN_2x.yaml",
}


def detect(model: nn.Module, image: Tensor, dtype: torch.dtype = torch.float32):
    """Predict an image (3, H, W) in 0..1; return a BoxList in its pixels, with masks as COCO RLEs."""
    mean, std = (image.new_tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
    with torch.inference_mode(), torch.autocast(image.device.type, dtype=dtype, enabled=dtype != torch.float32):
        found = model(to_image_list([(image - mean) / std], 32))[0]
        found = found.resize((image.shape[2], image.shape[1]))
        if found.has_field("mask"):
            found.add_field("rle", paste_rles(found.get_field("mask"), found.bbox, found.size))
    return found


def our_model(file: str, kind: str, image: Tensor) -> nn.Module:
    """Build a model in eval mode on the image's device, with about a hundred detections in the image."""
    model = ours(file).to(image.device).eval()
    if kind == "fcos":
        model.rpn.head.bbox_pred.bias.data.fill_(4)  # boxes of 110 pixels
    settle(model, lambda: detect(model, image))
    find_objects(model, lambda: detect(model, image), SCORES["fcos" if kind == "fcos" else "faster"], 0.05)
    return model


def our_sides(file: str, kind: str, image: Tensor) -> list[Callable]:
    """Return functions that predict the image in float32 and in bfloat16."""
    model = our_model(file, kind, image)
    copies = [(for_inference(model, dtype), dtype) for dtype in (torch.float32, torch.bfloat16)]
    return [lambda copy=copy, dtype=dtype: detect(copy, image, dtype) for copy, dtype in copies]


def their_side(kind: str, image: Tensor) -> Callable:
    model = theirs(kind).to(image.device).eval()
    model.transform.min_size, model.transform.max_size = (min(image.shape[1:]),), max(image.shape[1:])
    if kind == "fcos":
        model.head.regression_head.bbox_reg.bias.data.fill_(4)  # strides

    def run():
        with torch.inference_mode():
            return model([image])[0]

    settle(model, run)
    if kind == "fcos":  # its threshold of 0.2 applies to the root of the product with a centreness of 0.5
        find_objects(model, run, THEIR_SCORES["fcos"], 0.08)
    else:
        find_objects(model, run, THEIR_SCORES["faster"], 0.05)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=5)
    parser.add_argument("--only", choices=[*PAIRS, "bodies"], default=None)
    arguments = parser.parse_args()
    timing.begin(arguments)
    image = torch.rand(3, HEIGHT, WIDTH)

    asked = [name for name in PAIRS if arguments.only in (None, name)]
    if asked:
        print("| model | detections, ours / theirs | ours ms | bfloat16 ms | torchvision ms | ratio | bfloat16 ratio |")
        print("|---|---|---|---|---|---|---|")
    for name in asked:
        sides = [*our_sides(PAIRS[name][0], name, image), their_side(name, image)]
        found = f"{len(sides[0]())} / {len(sides[-1]()['boxes'])}"
        mine, half, other = timing.medians(sides, arguments.repeats, arguments.clock)
        ratios = f"{other / mine:.2f} | {other / half:.2f}"
        print(f"| {name} R-50 | {found} | {mine:.0f} | {half:.0f} | {other:.0f} | {ratios} |", flush=True)

    if arguments.only in (None, "bodies"):
        print("\n| Faster R-CNN | float32 ms | bfloat16 ms | ratio to the second, float32 | bfloat16 |")
        print("|---|---|---|---|---|")
        for first, second in (("V-39", "R-50"), ("V-57", "R-101")):
            sides = [side for body in (first, second) for side in our_sides(BODIES[body], "faster", image)]
            a32, a16, b32, b16 = timing.medians(sides, arguments.repeats, arguments.clock)
            print(f"| {first} | {a32:.0f} | {a16:.0f} | {a32 / b32:.2f} | {a16 / b16:.2f} |")
            print(f"| {second} | {b32:.0f} | {b16:.0f} | | |", flush=True)


if __name__ == "__main__":
    main()
