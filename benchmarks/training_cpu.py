"""Time training steps on the CPU against torchvision's in one process; see README.md in this folder for the protocol.

python benchmarks/training_cpu.py [--threads 2] [--repeats 3] [--only fcos] [--clock wall]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import timing
import torch
from detectors import CLASSES, PAIRS, config, ours, settle, theirs
from torch import Tensor

from maskrcnn_benchmark.engine.training_step import TrainingStep
from maskrcnn_benchmark.solver import make_optimizer
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

SIDE, BATCH_SIZE, OBJECTS = 640, 2, 7  # 7 objects per image, the mean of COCO
RATE = 1e-4


def make_objects(side: int = SIDE, device: str = "cpu") -> tuple[Tensor, Tensor, list]:
    """Make random boxes (OBJECTS, 4), labels and octagons in the boxes, for a square image."""
    corners = torch.rand(OBJECTS, 2) * side / 2
    boxes = torch.cat((corners, corners + 24 + torch.rand(OBJECTS, 2) * (side / 2 - 30)), dim=1).floor()
    angles = torch.arange(8) * torch.pi / 4
    circle = torch.stack((angles.cos(), angles.sin()), dim=1) / 2 + 0.5
    polygons = [[(box[:2] + circle * (box[2:] - box[:2])).flatten().tolist()] for box in boxes]
    return boxes.to(device), torch.randint(1, CLASSES + 1, (OBJECTS,)).to(device), polygons


def our_steps(name: str, images: list[Tensor], objects: list) -> list[Callable]:
    """Return functions that run a training step in float32 and in bfloat16, on copies of one model."""
    device, size, targets = images[0].device, tuple(images[0].shape[:0:-1]), []
    for boxes, labels, polygons in objects:
        target = BoxList(boxes, size)
        target.add_field("labels", labels)
        target.add_field("masks", SegmentationMask(polygons, size))
        targets.append(target)
    batch = [(to_image_list(images, 32), targets, None)]
    cfg = config(PAIRS[name][0], "SOLVER.BASE_LR", RATE)
    model = ours(PAIRS[name][0]).to(device).eval()
    settle(model, lambda: model(images))

    def step_of(model, dtype):
        step = TrainingStep(model, make_optimizer(cfg, model), device, dtype, 0)

        def run():
            losses = step.accumulate(batch)
            step.update()
            return losses

        return run

    return [step_of(copy.deepcopy(model).train(), dtype) for dtype in (torch.float32, torch.bfloat16)]


def their_step(name: str, images: list[Tensor], objects: list) -> Callable:
    """Return a function that runs a step of torchvision's references/detection.

    The optimizer is SGD with momentum and one parameter group; the loss is read every step.
    """
    size, targets = tuple(images[0].shape[:0:-1]), []
    for boxes, labels, polygons in objects:
        # sigmoids count classes from 0
        targets.append({"boxes": boxes, "labels": labels - int(name == "fcos")})
        if name == "mask":
            targets[-1]["masks"] = SegmentationMask(polygons, size).get_mask_tensor().to(boxes.device)
    model = theirs(name).to(images[0].device)
    model.transform.min_size, model.transform.max_size = (min(size),), max(size)
    model.eval()
    settle(model, lambda: model(images))
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=0.9, weight_decay=1e-4)

    def run():
        losses = model(images, targets)
        loss = sum(losses.values())
        loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {key: value.item() for key, value in losses.items()}

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=3)
    parser.add_argument("--only", choices=list(PAIRS), default=None)
    arguments = parser.parse_args()
    timing.begin(arguments)
    images = [torch.rand(3, SIDE, SIDE) for _ in range(BATCH_SIZE)]
    objects = [make_objects() for _ in range(BATCH_SIZE)]

    print("| training step | ours ms | bfloat16 ms | torchvision ms | ratio | bfloat16 ratio |")
    print("|---|---|---|---|---|---|")
    for name in PAIRS:
        if arguments.only not in (None, name):
            continue
        sides = [*our_steps(name, images, objects), their_step(name, images, objects)]
        mine, half, other = timing.medians(sides, arguments.repeats, arguments.clock)
        ratios = f"{other / mine:.2f} | {other / half:.2f}"
        print(f"| {name} R-50 | {mine:.0f} | {half:.0f} | {other:.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
