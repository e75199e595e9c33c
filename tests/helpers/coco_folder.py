"""Small COCO datasets on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


class CocoFolder:
    """Collector of images and annotations; `write` writes the JSON file."""

    def __init__(self, root: Path, categories=("cat", "dog")):
        self.root = root
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.categories = [{"id": k, "name": name} for k, name in enumerate(categories, start=1)]

    def add_image(self, image_id, size=(60, 40), json_size=None, file_name=None, **save_options) -> Path:
        """Write an image (width, height) with a gradient, so that all pixels differ; return its path."""
        path = self.root / "images" / (file_name or f"{image_id}.jpg")
        x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8)).save(path, **save_options)
        width, height = json_size or size
        self.images.append({"id": image_id, "file_name": path.name, "width": width, "height": height})
        return path

    def add_box(self, image_id, bbox, category_id=1, **more) -> int:
        """Add an annotation; return its id: 1, 2, ..."""
        number = len(self.annotations) + 1
        row = {"id": number, "image_id": image_id, "bbox": bbox, "category_id": category_id}
        self.annotations.append({**row, **more})
        return number

    def write(self, name="boxes.json") -> dict:
        """Write the JSON file; return arguments for COCODataset."""
        content = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        (self.root / name).write_text(json.dumps(content))
        return {"ann_file": str(self.root / name), "root": str(self.root / "images")}
