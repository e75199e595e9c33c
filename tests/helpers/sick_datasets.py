"""One dataset with known faults, written in every format.

`write(folder, format)` writes images and annotations of training and test data, and returns the blocks for DATASETS.
"""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.scenes import random_scene

CLASSES = ("cat", "dog", "zebra")
SIZE = 200, 150  # width, height
FORMATS = ("coco", "objects365", "lvis", "shards", "yolo", "labelme", "voc", "openimages")

# Name of the image: its objects, class and x, y, width, height. Names say what is wrong.
GOOD = [("cat", 20, 20, 60, 50), ("dog", 90, 30, 40, 60)]
TRAIN = {
    **{f"good{k}": GOOD for k in range(4)},
    "flat": [*GOOD, ("cat", 30, 40, 0, 30)],
    "outside": [*GOOD, ("cat", 300, 40, 30, 30)],
    "over": [*GOOD, ("dog", 150, 100, 90, 40)],
    "repeated": [*GOOD, GOOD[0]],
    "once": [*GOOD, ("zebra", 120, 100, 40, 40)],
    "truncated": GOOD,
    "turned": GOOD,
    "grey": GOOD,
    "deep": GOOD,
    "broken": GOOD,
    "missing": GOOD,
}
TEST = {"copy": GOOD, "other": GOOD}
PNG = ("deep",)


def write(root: Path, kind: str, seed: int = 0) -> tuple[dict, dict]:
    """Write the dataset in one of FORMATS, and return the blocks of training and test data."""
    rng = np.random.default_rng(seed)
    blocks = []
    original = None
    for split, items in (("train", TRAIN), ("val", TEST)):
        images = root / ("images" if kind in ("yolo", "voc") else "") / split
        images.mkdir(parents=True)
        for name in items:
            scene = original.resize((160, 120)) if name == "copy" else random_scene(rng, SIZE)
            original = scene if name == "good0" else original
            _save(scene, name, images / _file(name))
        blocks.append({"NAME": split, **_WRITERS.get(kind, _write_coco)(root, images, split, items, kind)})
    return tuple(blocks)


def _file(name: str) -> str:
    return f"{name}.png" if name in PNG else f"{name}.jpg"


def _save(scene: Image.Image, name: str, path: Path) -> None:
    exif = Image.Exif()
    if name == "missing":
        return
    if name == "turned":
        exif[0x0112] = 6
        scene = scene.resize(SIZE[::-1]).rotate(90, expand=True)  # as it is stored: upright it is 150 x 200
    if name == "grey":
        scene = scene.convert("L")
    if name == "deep":
        Image.fromarray(np.asarray(scene.convert("L")).astype(np.uint16) * 257).save(path)
        return
    scene.save(path, **({"exif": exif} if exif else {}))
    if name == "truncated":
        path.write_bytes(path.read_bytes()[:-900])
    if name == "broken":
        path.write_bytes(b"not an image")


def _size(name: str) -> tuple[int, int]:
    """Return what annotations say about the size: that of the upright image."""
    return {"turned": SIZE[::-1], "copy": (160, 120)}.get(name, SIZE)


def _write_coco(root: Path, images: Path, split: str, items: dict, kind: str) -> dict:
    before = {"objects365": "images/v1/patch8/"}.get(kind, "")
    content = {"images": [], "annotations": [], "categories": []}
    for number, (name, objects) in enumerate(items.items(), start=1):
        width, height = _size(name)
        image = {"id": number, "file_name": before + _file(name), "width": width, "height": height}
        if kind == "lvis":
            image.update(neg_category_ids=[3], not_exhaustive_category_ids=[1])
            image["coco_url"] = f"http://images.cocodataset.org/{split}/{image.pop('file_name')}"
        content["images"].append(image)
        for label, *box in objects:
            entry = {"id": len(content["annotations"]) + 1, "image_id": number, "bbox": box}
            entry |= {"category_id": CLASSES.index(label) + 1, "area": box[2] * box[3], "iscrowd": 0}
            content["annotations"].append(entry)
    content["categories"] = [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)]
    if kind == "lvis":
        content["categories"] = [{**each, "frequency": "f"} for each in content["categories"]]
    path = root / f"{split}.json"
    path.write_text(json.dumps(content))
    folder = str(root if kind == "lvis" else images)
    if kind == "objects365":
        (images / "patch8").mkdir()
        for file in images.glob("*.*"):
            file.rename(images / "patch8" / file.name)
    if kind == "shards":
        folder = _pack(images, root / f"{split}_shards")
    return {"FORMAT": "lvis" if kind == "lvis" else "coco", "IMAGES": folder, "ANNOTATIONS": str(path)}


def _pack(images: Path, folder: Path) -> str:
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number:06d}.tar", "w") as archive:
            for file in sorted(images.iterdir())[number::2]:
                archive.add(file, file.name)
    return str(folder / "{000000..000001}.tar")


def _write_yolo(root: Path, images: Path, split: str, items: dict, kind: str) -> dict:
    labels = root / "labels" / split
    labels.mkdir(parents=True)
    for name, objects in items.items():
        width, height = _size(name)
        rows = [
            f"{CLASSES.index(label)} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n"
            for label, x, y, w, h in objects
        ]
        (labels / f"{name}.txt").write_text("".join(rows))
    (root / f"{split}.txt").write_text("".join(f"images/{split}/{_file(name)}\n" for name in items))
    (root / "data.yaml").write_text(f"train: train.txt\nval: val.txt\nnames: [{', '.join(CLASSES)}]\n")
    return {"FORMAT": "yolo", "DATA": str(root / "data.yaml"), "SPLIT": split}


def _write_labelme(root: Path, images: Path, split: str, items: dict, kind: str) -> dict:
    for name, objects in items.items():
        width, height = _size(name)
        shapes = [
            {"label": label, "shape_type": "rectangle", "points": [[x, y], [x + w, y + h]], "group_id": None}
            for label, x, y, w, h in objects
        ]
        content = {"imagePath": _file(name), "imageWidth": width, "imageHeight": height, "imageData": None}
        (images / f"{name}.json").write_text(json.dumps({"shapes": shapes, **content}))
    return {"FORMAT": "labelme", "ANNOTATIONS": str(images), "CLASSES": list(CLASSES)}


def _write_voc(root: Path, images: Path, split: str, items: dict, kind: str) -> dict:
    folder = root / "Annotations" / split
    folder.mkdir(parents=True)
    for name, objects in items.items():
        width, height = _size(name)
        rows = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{max(x + w, x + 1)}"
            f"</xmax><ymax>{max(y + h, y + 1)}</ymax></bndbox></object>"
            for label, x, y, w, h in objects
        )
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{_file(name)}</filename>{size}{rows}</annotation>"
        (folder / f"{name}.xml").write_text(text)
    return {"FORMAT": "voc", "IMAGES": str(images), "ANNOTATIONS": str(folder), "CLASSES": list(CLASSES)}


def _write_openimages(root: Path, images: Path, split: str, items: dict, kind: str) -> dict:
    with open(root / f"{split}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow("ImageID LabelName XMin XMax YMin YMax IsGroupOf".split())
        for name, objects in items.items():
            width, height = _size(name)
            for label, x, y, w, h in objects:
                row = x / width, (x + w) / width, y / height, (y + h) / height
                writer.writerow([name, f"/m/{label}", *row, 0])
    (root / "classes.csv").write_text("".join(f"/m/{label},{label}\n" for label in CLASSES))
    (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in items))
    return {
        "FORMAT": "openimages",
        "IMAGES": str(images),
        "ANNOTATIONS": str(root / f"{split}.csv"),
        "CLASSES": str(root / "classes.csv"),
        "SPLIT": str(root / f"{split}.txt"),
    }


_WRITERS = {"yolo": _write_yolo, "labelme": _write_labelme, "voc": _write_voc, "openimages": _write_openimages}
