"""Write a synthetic COCO dataset, for measurements without a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn_benchmark.structures.keypoint import PersonKeypoints

OBJECTS = 7  # objects per image, the mean of COCO
CORNERS = 12  # points per outline


def write_synthetic_data(folder: Path, num_images: int, size: tuple[int, int], classes: int, keypoints: bool) -> dict:
    """Write JPEG images and instances.json.

    Args:
        folder: existing folder.
        num_images: number of images.
        size: (width, height) of the images.
        classes: number of classes; their names are "1", "2", ...
        keypoints: add a person's keypoints to every object.

    Returns:
        Block for DATASETS.TEST.
    """
    width, height = size
    rng = np.random.default_rng(0)
    annotations = []
    for number in range(1, num_images + 1):
        Image.fromarray(_pixels(rng, width, height)).save(folder / f"{number}.jpg", quality=90)
        for _ in range(OBJECTS):
            entry = _object(rng, width, height)
            if keypoints:
                entry["keypoints"] = _keypoints(rng, entry["bbox"])
                entry["num_keypoints"] = len(PersonKeypoints.NAMES)
            category = int(rng.integers(1, classes + 1))
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category, **entry})
    content = {
        "images": [
            {"id": k, "file_name": f"{k}.jpg", "width": width, "height": height} for k in range(1, num_images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 1)],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return {
        "NAME": "synthetic",
        "FORMAT": "coco",
        "IMAGES": str(folder),
        "ANNOTATIONS": str(folder / "instances.json"),
    }


def _pixels(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Return (H, W, 3) uint8 with structure at several scales, so that decoding takes as long as for a photograph."""
    total = np.zeros((height, width, 3))
    for cells, amplitude in ((4, 90), (16, 50), (64, 25), (256, 10)):
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        fine = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        total += (fine / 127.5 - 1) * amplitude
    return (total + 128).clip(0, 255).astype(np.uint8)


def _object(rng: np.random.Generator, width: int, height: int) -> dict:
    """Return bbox, area and segmentation of an ellipse of CORNERS points; its sides are 5 to 50 % of the image's."""
    w, h = (float(side * rng.uniform(0.05, 0.5)) for side in (width, height))
    x, y = float(rng.uniform(0, width - w)), float(rng.uniform(0, height - h))
    angles = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    outline = np.stack((x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))), axis=1)
    return {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": [outline.ravel().tolist()]}


def _keypoints(rng: np.random.Generator, box: list[float]) -> list[float]:
    """Return random keypoints of a person in the box, as a flat list of x, y, visibility."""
    x, y, w, h = box
    places = rng.uniform(size=(len(PersonKeypoints.NAMES), 2)) * (w, h) + (x, y)
    return np.concatenate((places, np.full((len(places), 1), 2.0)), axis=1).ravel().tolist()
