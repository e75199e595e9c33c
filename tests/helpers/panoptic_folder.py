"""Small COCO panoptic datasets on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn_benchmark.structures.panoptic_map import colors_from_ids

CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": 1},
    {"id": 92, "name": "grass", "isthing": 0},
    {"id": 3, "name": "dog", "isthing": 1},
    {"id": 93, "name": "sky", "isthing": 0},
]
CAT, GRASS, DOG, SKY = (category["id"] for category in CATEGORIES)


class PanopticFolder:
    """Collector of images and segments; `write` writes the JSON file."""

    def __init__(self, root: Path):
        self.root = root
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        for folder in ("images", "segments"):
            (root / folder).mkdir(parents=True)

    def add(self, image_id, segments, size=(40, 30), map_size=None) -> np.ndarray:
        """Write an image (width, height) and its segment map.

        Args:
            segments: tuples (id, category id, (x, y, width, height), optional dict of further entries). Later segments
                cover earlier ones.

        Returns:
            (H, W) segment ids.
        """
        width, height = size
        pixels = np.random.randint(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.root / "images" / f"{image_id}.jpg")
        map_width, map_height = map_size or size
        ids = np.zeros((map_height, map_width), dtype=np.int32)
        infos = []
        for number, category_id, (x, y, w, h), *more in segments:
            ids[y : y + h, x : x + w] = number
            info = {"id": number, "category_id": category_id, "bbox": [x, y, w, h], "iscrowd": 0}
            infos.append({**info, **(more[0] if more else {})})
        Image.fromarray(colors_from_ids(ids)).save(self.root / "segments" / f"{image_id}.png")
        self.images.append({"id": image_id, "file_name": f"{image_id}.jpg", "width": width, "height": height})
        self.annotations.append({"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": infos})
        return ids

    def write(self, **changes) -> dict:
        """Write the JSON file, with `changes` to its top-level entries; return arguments for COCOPanopticDataset."""
        content = {"images": self.images, "annotations": self.annotations, "categories": CATEGORIES, **changes}
        (self.root / "segments.json").write_text(json.dumps(content))
        return {"panoptic_file": str(self.root / "segments.json"), "root": str(self.root / "images")}
