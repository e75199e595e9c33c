"""Small COCO data sets on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.config import cfg as defaults


class CocoFolder:
    """Collects pictures and annotations; `write` makes the json."""

    def __init__(self, root: Path, categories=("cat", "dog")):
        self.root = root
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.categories = [{"id": k, "name": name} for k, name in enumerate(categories, start=1)]

    def add_image(self, image_id, size=(60, 40), json_size=None, file_name=None, **save_options) -> Path:
        """A picture of (width, height) with a gradient, so that no two places look alike."""
        path = self.root / "images" / (file_name or f"{image_id}.jpg")
        x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8)).save(path, **save_options)
        width, height = json_size or size
        self.images.append({"id": image_id, "file_name": path.name, "width": width, "height": height})
        return path

    def add_box(self, image_id, bbox, category_id=1, **more) -> int:
        """Returns the annotation id: 1, 2, ..."""
        number = len(self.annotations) + 1
        row = {"id": number, "image_id": image_id, "bbox": bbox, "category_id": category_id}
        self.annotations.append({**row, **more})
        return number

    def write(self, name="boxes.json") -> dict:
        """Arguments for COCODataset."""
        content = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        (self.root / name).write_text(json.dumps(content))
        return {"ann_file": str(self.root / name), "root": str(self.root / "images")}


@pytest.fixture
def coco_folder(tmp_path):
    return CocoFolder(tmp_path)


@pytest.fixture
def make_coco_folder(tmp_path):
    """make_coco_folder(name, categories): further data sets."""

    def make(name: str, categories=("cat", "dog")) -> CocoFolder:
        (tmp_path / name).mkdir()
        return CocoFolder(tmp_path / name, categories)

    return make


@pytest.fixture
def loader_cfg():
    """loader_cfg(train, test, *overrides): a configuration of loaders for small pictures, without workers."""

    def make(train=(), test=(), *overrides):
        cfg = defaults.clone()
        cfg.defrost()
        cfg.DATASETS.TRAIN = tuple(_block(entry) for entry in train)
        cfg.DATASETS.TEST = tuple(_block(entry) for entry in test)
        cfg.merge_from_list(
            ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 6]
            + ["INPUT.MIN_SIZE_TRAIN", (32, 40, 48), "INPUT.MAX_SIZE_TRAIN", 96]
            + ["INPUT.MIN_SIZE_TEST", 40, "INPUT.MAX_SIZE_TEST", 96]
            + list(overrides)
        )
        return cfg

    def _block(args: dict) -> dict:
        return {"FORMAT": "coco", "IMAGES": args["root"], "ANNOTATIONS": args["ann_file"]}

    return make
