"""Small COCO data sets on the disk, for tests. Not a test file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, size=(60, 40), **save_options) -> None:
    """A picture of (width, height) with a gradient, so that no two places look alike."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, 255 - x], axis=2).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **save_options)


def annotation(number, image_id, bbox, category_id=1, **more) -> dict:
    return {"id": number, "image_id": image_id, "bbox": bbox, "category_id": category_id, **more}


class CocoFolder:
    """Collects pictures and annotations, then writes the json."""

    def __init__(self, root: Path, categories=("cat", "dog")):
        self.root = root
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.categories = [{"id": k, "name": name} for k, name in enumerate(categories, start=1)]

    def add_image(self, image_id, size=(60, 40), json_size=None, file_name=None, **save_options) -> Path:
        file_name = file_name or f"{image_id}.jpg"
        picture(self.root / "images" / file_name, size, **save_options)
        width, height = json_size or size
        self.images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        return self.root / "images" / file_name

    def add_box(self, image_id, bbox, category_id=1, **more) -> int:
        number = len(self.annotations) + 1
        self.annotations.append({**annotation(number, image_id, bbox, category_id), **more})
        return number

    def write(self, name="boxes.json") -> dict:
        """Writes the json; returns ann_file and root for COCODataset."""
        content = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        (self.root / name).write_text(json.dumps(content))
        return {"ann_file": str(self.root / name), "root": str(self.root / "images")}
