"""Time Faster R-CNN V2-19-slim-dw-FPNLite on the CPU beside torchvision's mobile detectors, interleaved in one process.

python benchmarks/mobile_cpu.py [--threads 2] [--repeats 15] [--sizes 320 640] [--clock wall]

Both sides get the same square image and, where they have proposals, the same number of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import timing
import torch
from detectors import CANDIDATES, CLASSES, TheirFrozenBatchNorm2d, find_objects, ours, settle
from models_cpu import THEIR_SCORES, detect
from torch import Tensor, nn
from torchvision.models import detection

from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.profiling.flops import count_multiply_adds

CONFIG = "vovnet/v2/faster_rcnn_V_19_slim_dw_FPNLite_3x.yaml"
SCORES = "roi_heads.box.predictor.cls_score"


@dataclass(frozen=True)
class Peer:
    """A detector of torchvision.

    Args:
        build: torchvision's function.
        proposals: its proposals per image, 0 for a one-stage detector.
        sizes: sides of the image at which it runs.
    """

    build: Callable[..., nn.Module]
    proposals: int
    sizes: tuple[int, ...]


PEERS = {
    "fasterrcnn_mobilenet_v3_large_fpn": Peer(detection.fasterrcnn_mobilenet_v3_large_fpn, 1000, (320, 640)),
    "fasterrcnn_mobilenet_v3_large_320_fpn": Peer(detection.fasterrcnn_mobilenet_v3_large_320_fpn, 150, (320,)),
    "ssdlite320_mobilenet_v3_large": Peer(detection.ssdlite320_mobilenet_v3_large, 0, (320,)),
}


def our_model(image: Tensor, proposals: int) -> nn.Module:
    """Build FPNLite in eval mode with `proposals` per image and about a hundred detections."""
    limits = [f"MODEL.RPN.{key}_TOP_N_TEST" for key in ("PRE_NMS", "POST_NMS", "FPN_POST_NMS")]
    model = ours(CONFIG, *(option for key in limits for option in (key, proposals))).eval()
    settle(model, lambda: detect(model, image))
    find_objects(model, lambda: detect(model, image), SCORES, 0.05)
    return model


def their_model(peer: Peer, image: Tensor) -> nn.Module:
    """Build torchvision's detector, with frozen norms as with its published weights."""
    model = peer.build(weights=None, weights_backbone=None, num_classes=CLASSES + 1).eval()
    if peer.proposals:
        _freeze_norms(model)
        model.transform.min_size, model.transform.max_size = (image.shape[1],), image.shape[1]
        model.rpn._pre_nms_top_n = model.rpn._post_nms_top_n = {"training": 0, "testing": peer.proposals}
        settle(model, lambda: model([image]))
        with torch.no_grad():
            find_objects(model, lambda: model([image]), THEIR_SCORES["faster"], 0.05)
    else:
        _find_objects_of_ssd(model, image)
    return model


def _freeze_norms(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, TheirFrozenBatchNorm2d(child.num_features))


@torch.no_grad()
def _find_objects_of_ssd(model: nn.Module, image: Tensor) -> None:
    """Raise the background's bias until CANDIDATES (anchor, class) pairs exceed the model's own score threshold."""
    last = [level[-1] for level in model.head.classification_head.module_list]
    outputs: list[Tensor] = []
    hook = model.head.classification_head.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    model([image])
    hook.remove()
    logits, low, high = outputs[0].flatten(0, 1), 0.0, 50.0
    for _ in range(40):
        bias = (low + high) / 2
        shifted = logits.clone()
        shifted[:, 0] += bias
        found = (shifted.softmax(1)[:, 1:] > model.score_thresh).sum()
        low, high = (bias, high) if found > CANDIDATES else (low, bias)
    for layer in last:
        layer.bias.view(-1, CLASSES + 1)[:, 0] += low


def row(name: str, peer: Peer, size: int, arguments: argparse.Namespace) -> str:
    image = torch.rand(3, size, size)
    # ssdlite has no proposals: compare it with ours at the smallest number of proposals
    proposals = peer.proposals or min(other.proposals for other in PEERS.values() if other.proposals)
    mine, other = our_model(image, proposals), their_model(peer, image)
    adds = [
        count_multiply_adds(mine, lambda: detect(mine, image))[""],
        count_multiply_adds(other, lambda: other([image]))[""],
    ]

    def theirs():
        with torch.inference_mode():
            return other([image])[0]

    copies = [(for_inference(mine, dtype), dtype) for dtype in (torch.float32, torch.bfloat16)]
    sides = [lambda copy=copy, dtype=dtype: detect(copy, image, dtype) for copy, dtype in copies]
    found = f"{len(sides[0]())} / {len(theirs()['boxes'])}"
    full, half, peers = timing.medians([*sides, theirs], arguments.repeats, arguments.clock)
    return (
        f"| {name} | {size} | {proposals} / {peer.proposals or 'none'} | {found} | {adds[0] / 1e9:.2f} / "
        f"{adds[1] / 1e9:.2f} | {full:.1f} ({1e3 / full:.0f}) | {half:.1f} ({1e3 / half:.0f}) | {peers:.1f} "
        f"({1e3 / peers:.0f}) | {peers / full:.2f} | {peers / half:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=15)
    parser.add_argument("--sizes", type=timing.positive, nargs="+", default=[320, 640])
    parser.add_argument("--only", choices=PEERS, default=None)
    arguments = parser.parse_args()
    timing.begin(arguments)
    print(
        "| torchvision's detector | side of the image | proposals, ours / theirs | detections | multiply-adds, 10^9 | "
        "ours ms (FPS) | ours bfloat16 ms (FPS) | theirs ms (FPS) | ratio | bfloat16 ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, peer in PEERS.items():
        for size in peer.sizes:
            if size in arguments.sizes and arguments.only in (None, name):
                print(row(name, peer, size, arguments), flush=True)


if __name__ == "__main__":
    main()
