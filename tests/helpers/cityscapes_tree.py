"""Cityscapes tree of a few small images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn_benchmark.data.datasets.cityscapes_annotations import LABEL_IDS

SIZE = (96, 64)
ROAD, CAR_GROUP = 7, 26
# by image: objects (label, x1, y1, x2, y2) with inclusive corners; later objects are in front
TREE = {
    "train": {
        "aachen/aachen_000000_000019": [("car", 10, 10, 49, 39), ("person", 30, 5, 39, 49)],
        "aachen/aachen_000001_000019": [],
        "bremen/bremen_000000_000019": [("caravan", 5, 5, 40, 30), ("bicycle", 50, 30, 80, 60)],
    },
    "val": {
        "munster/munster_000000_000019": [("rider", 20, 10, 35, 50), ("bicycle", 15, 30, 45, 58)],
        "munster/munster_000001_000019": [("bus", 4, 4, 80, 50), ("person", 90, 60, 90, 60)],
    },
    "test": {"berlin/berlin_000000_000019": []},
}


def write_tree(root: Path) -> Path:
    """Write root/leftImg8bit and root/gtFine, and root/images with all images. Every image has a group of cars."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, images in TREE.items():
        for name, objects in images.items():
            pixels = Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
            ids = np.full((SIZE[1], SIZE[0]), ROAD, dtype=np.uint16)
            ids[:3, :20] = CAR_GROUP
            drawn = [{"label": "cargroup", "polygon": [[0, 0], [19, 0], [19, 2], [0, 2]]}]
            for number, (label, x1, y1, x2, y2) in enumerate(objects):
                ids[y1 : y2 + 1, x1 : x2 + 1] = 1000 * LABEL_IDS[label] + number
                drawn.append({"label": label, "polygon": [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]})
            drawn.append({"label": "car", "deleted": 1, "polygon": [[50, 50], [60, 50], [60, 60]]})
            for kind in ("leftImg8bit", "gtFine"):
                (root / kind / split / name).parent.mkdir(parents=True, exist_ok=True)
            file = f"{name}_leftImg8bit.png"
            pixels.save(root / "leftImg8bit" / split / file)
            pixels.save(root / "images" / Path(file).name)
            Image.fromarray(ids).save(root / "gtFine" / split / f"{name}_gtFine_instanceIds.png")
            content = {"imgWidth": SIZE[0], "imgHeight": SIZE[1], "objects": drawn}
            (root / "gtFine" / split / f"{name}_gtFine_polygons.json").write_text(json.dumps(content))
    return root
