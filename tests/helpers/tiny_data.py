"""COCO dataset of three small images with one object each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((90, 64), (60, 90), (90, 64))


def write_images(folder: Path, with_masks: bool = True) -> dict:
    """Write folder/1.png, 2.png, 3.png and objects.json; return the block for DATASETS."""
    images, annotations = [], []
    for number, (width, height) in enumerate(SIZES, start=1):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        row = {"id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 30, 40], "area": 1200, "iscrowd": 0}
        annotations.append(row | ({"segmentation": [[10, 10, 40, 10, 40, 50, 10, 50]]} if with_masks else {}))
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    path = folder / "objects.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return {"NAME": "test", "FORMAT": "coco", "IMAGES": str(folder), "ANNOTATIONS": str(path)}
