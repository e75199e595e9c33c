"""Time data loading against torchvision's; see README.md in this folder for the protocol.

python benchmarks/loading.py [--images coco/train2017 --annotations coco/annotations/instances_train2017.json]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import random
import tempfile
from pathlib import Path

import timing
import torch
from pycocotools import mask as coco_mask
from torchvision.datasets import CocoDetection
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import functional

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.collate_batch import BatchCollator
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.profiling.synthetic import write_synthetic_data

BATCH = 2
SHORT, LONG = 800, 1333


def ours(images: str, annotations: str, masks: bool):
    """Return a function that loads the next batch with this package."""
    cfg = defaults.clone()
    cfg.MODEL.MASK_ON = masks
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (SHORT,), LONG
    block = {"NAME": "loading", "FORMAT": "coco", "IMAGES": images, "ANNOTATIONS": annotations}
    (dataset,) = build_dataset([block], build_transforms(cfg))
    collate, order = BatchCollator(32), itertools.cycle(range(len(dataset)))
    return lambda: collate([dataset[next(order)] for _ in range(BATCH)])


def theirs(images: str, annotations: str, masks: bool):
    """Return a function that loads the next batch with torchvision, as its reference training does.

    The steps are CocoDetection, polygons to bitmap masks, boxes to corners, flip, float tensor, and those inside its
    detectors: normalise, resize, pad. Crowd regions, boxes without area and images without boxes are skipped.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = CocoDetection(images, annotations)
    usable = [k for k, number in enumerate(dataset.ids) if _objects(dataset.coco.imgToAnns[number])]
    to_batch = GeneralizedRCNNTransform(SHORT, LONG, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).train()
    order = itertools.cycle(usable)

    def sample():
        image, entries = dataset[next(order)]
        target = _their_target(image.size, _objects(entries), masks)
        if random.random() < 0.5:
            image = functional.hflip(image)
            target["boxes"][:, [0, 2]] = image.width - target["boxes"][:, [2, 0]]
            if masks:
                target["masks"] = target["masks"].flip(-1)
        return functional.convert_image_dtype(functional.pil_to_tensor(image), torch.float), target

    return lambda: to_batch(*map(list, zip(*(sample() for _ in range(BATCH)), strict=True)))


def _objects(entries):
    return [entry for entry in entries if not entry["iscrowd"] and min(entry["bbox"][2:]) > 0]


def _their_target(size, entries, masks: bool) -> dict:
    width, height = size
    boxes = torch.tensor([entry["bbox"] for entry in entries], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    boxes[:, 0::2].clamp_(0, width)
    boxes[:, 1::2].clamp_(0, height)
    target = {"boxes": boxes, "labels": torch.tensor([entry["category_id"] for entry in entries])}
    if masks:
        drawn = []
        for entry in entries:
            parts = coco_mask.decode(coco_mask.frPyObjects(entry["segmentation"], height, width))
            drawn.append(torch.as_tensor(parts).any(dim=2).to(torch.uint8))
        target["masks"] = torch.stack(drawn)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=40)
    parser.set_defaults(threads=1)  # as in a loader's worker
    parser.add_argument("--images", help="folder of images (default: synthetic images of 640 x 480)")
    parser.add_argument("--annotations", help="COCO JSON file")
    arguments = parser.parse_args()
    if bool(arguments.images) != bool(arguments.annotations):
        parser.error("--images and --annotations require each other")
    timing.begin(arguments)
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        images, annotations = arguments.images, arguments.annotations
        if not images:
            block = write_synthetic_data(Path(folder), 16, (640, 480), 80, keypoints=False)
            images, annotations = block["IMAGES"], block["ANNOTATIONS"]
        print(f"{os.path.basename(images) if arguments.images else 'synthetic images'}, batches of {BATCH}\n")
        print("| targets | ours, images/s | torchvision, images/s | ratio |\n|---|---|---|---|")
        for title, masks in (("boxes", False), ("boxes and masks", True)):
            sides = [ours(images, annotations, masks), theirs(images, annotations, masks)]
            mine, other = timing.medians(sides, arguments.repeats, arguments.clock)
            rates = f"{BATCH * 1e3 / mine:.0f} | {BATCH * 1e3 / other:.0f}"
            print(f"| {title} | {rates} | {other / mine:.2f} |", flush=True)


if __name__ == "__main__":
    main()
