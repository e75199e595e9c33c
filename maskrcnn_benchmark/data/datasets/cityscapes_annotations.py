"""Convert Cityscapes annotations (Cordts et al., CVPR 2016) to the layout of a COCO instances file.

    IMG_DIR/SPLIT/CITY/NAME_leftImg8bit.png
    ANN_DIR/SPLIT/CITY/NAME_gtFine_instanceIds.png    16 bits: label id, or 1000 * label id + number for single objects
    ANN_DIR/SPLIT/CITY/NAME_gtFine_polygons.json

Shapes: H x W pixels of an image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from maskrcnn_benchmark.structures.rle import encode_window
from maskrcnn_benchmark.utils.text_file import open_regular, read_text

# Label ids of the classes with instances. A pixel value below OBJECTS belongs to a group or to stuff.
LABEL_IDS = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "caravan": 29,
    "trailer": 30,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
OBJECTS = 1000
# Classes of the instance segmentation benchmark.
BENCHMARK_CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")

IMAGE_SUFFIX = "_leftImg8bit.png"
IDS = "_gtFine_instanceIds.png"
POLYGONS = "_gtFine_polygons.json"

READERS = 8


def find_names(folder: str, ending: str) -> list[str]:
    """Return CITY/NAME of all files `folder`/CITY/NAME`ending`, in alphabetical order.

    Raises:
        FileNotFoundError: the folder does not exist or has no such file.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"Cityscapes folder {folder} does not exist")
    names = []
    for city in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()):
        files = sorted(os.listdir(os.path.join(folder, city)))
        names += [f"{city}/{file.removesuffix(ending)}" for file in files if file.endswith(ending)]
    if not names:
        raise FileNotFoundError(f"Cityscapes folder {folder} has no file CITY/*{ending}")
    return names


def read_ids(path: str) -> np.ndarray:
    """Read an instanceIds.png as (H, W) int32.

    Raises:
        ValueError: the image does not have one channel.
    """
    with open_regular(path) as file, Image.open(file) as image:
        ids = np.asarray(image)
    if ids.ndim != 2:
        raise ValueError(
            f"{path} has {ids.ndim} dimensions; expected one number per pixel, as in gtFine's instanceIds.png"
        )
    return ids.astype(np.int32)


def objects_in(ids: np.ndarray, class_names: Sequence[str]) -> Iterator[tuple[str, np.ndarray, int, int]]:
    """Yield (class name, window, left, top) for every object of these classes, in ascending order of ids.

    The window, (h, w) bool, is the object's mask cropped to its tight box. (left, top) is the window's first pixel in
    the image.

    Args:
        ids: (H, W), see `read_ids`.
        class_names: classes to yield.
    """
    class_of = {LABEL_IDS[name]: name for name in class_names}
    for number in np.unique(ids[ids >= OBJECTS]).tolist():
        name = class_of.get(number // OBJECTS)
        if name is not None:
            mask = ids == number
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            yield name, mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], int(columns[0]), int(rows[0])


def find_annotations(
    img_dir: str, ann_dir: str, split: str, mode: str, mini: int | None
) -> tuple[list[str], list[str]]:
    """Return CITY/NAME of a split's images, and the path of each annotation file, which may be missing.

    Arguments and errors: see `read_cityscapes`.
    """
    if mode not in READ:
        raise ValueError(f"the mode of a Cityscapes dataset must be one of {', '.join(map(repr, READ))}, got {mode!r}")
    names = find_names(os.path.join(img_dir, split), IMAGE_SUFFIX)[:mini]
    return names, [os.path.join(ann_dir, split, name + READ[mode][0]) for name in names]


def read_cityscapes(
    img_dir: str, ann_dir: str, split: str, mode: str, class_names: Sequence[str], min_area: float, mini: int | None
) -> dict:
    """Read the images and objects of a split in the layout of a COCO instances file.

    Args:
        img_dir, ann_dir: see the module.
        split: "train", "val" or "test".
        mode: "mask" reads instanceIds.png: visible pixels, as RLE. "poly" reads polygons.json: outlines as drawn,
            including parts hidden by other objects.
        class_names: category k is the k-th of them.
        min_area: objects with fewer square pixels are dropped.
        mini: number of images to use, from the first in alphabetical order; None uses all.

    Returns:
        A dict with "images", "annotations" and "categories". Image ids are NAME, file names are
        CITY/NAME_leftImg8bit.png. Groups of objects drawn as one are dropped.

    Raises:
        FileNotFoundError: a folder or an annotation file is missing.
        ValueError: mode is unknown, a class has no instances, or an annotation file is damaged.
    """
    unknown = [name for name in class_names if name not in LABEL_IDS]
    if unknown:
        raise ValueError(f"Cityscapes has no instances of {unknown}, only of {', '.join(LABEL_IDS)}")
    names, paths = find_annotations(img_dir, ann_dir, split, mode, mini)
    read = READ[mode][1]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(f"{len(missing):,} of {len(paths):,} Cityscapes annotations are missing: {missing[0]}")
    category = {name: number for number, name in enumerate(class_names, start=1)}
    images, annotations = [], []
    with ThreadPoolExecutor(READERS) as readers:
        for name, (size, objects) in zip(names, readers.map(lambda path: read(path, class_names), paths), strict=True):
            image_id = name.rsplit("/", 1)[1]
            images.append({"id": image_id, "file_name": name + IMAGE_SUFFIX, "width": size[0], "height": size[1]})
            for class_name, shape in objects:
                if shape["area"] >= min_area:
                    head = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category[class_name]}
                    annotations.append({**head, **shape, "iscrowd": 0})
    categories = [{"id": number, "name": name} for name, number in category.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _masks_of(path: str, class_names: Sequence[str]):
    ids = read_ids(path)
    height, width = ids.shape
    objects = []
    for name, window, left, top in objects_in(ids, class_names):
        shape = {
            "bbox": [left, top, window.shape[1], window.shape[0]],
            "area": int(window.sum()),
            "segmentation": encode_window(window, left, top, height, width),
        }
        objects.append((name, shape))
    return (width, height), objects


def _polygons_of(path: str, class_names: Sequence[str]):
    try:
        content = json.loads(read_text(path))
        size = (int(content["imgWidth"]), int(content["imgHeight"]))
        objects = []
        for entry in content["objects"]:
            if entry["label"] not in class_names or entry.get("deleted"):
                continue
            points = np.array(entry["polygon"], dtype=np.float64).reshape(-1, 2)
            x, y = points.T
            corner, sides = points.min(axis=0), np.ptp(points, axis=0) + 1
            area = abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
            shape = {"bbox": [*corner.tolist(), *sides.tolist()], "area": area}
            objects.append((entry["label"], shape | {"segmentation": [points.reshape(-1).tolist()]}))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a gtFine polygons file: {type(error).__name__}: {error}") from error
    return size, objects


# mode -> ending of the annotation files, and their reader, which returns ((width, height), [(class name, entries)])
READ: dict[str, tuple[str, Callable]] = {"mask": (IDS, _masks_of), "poly": (POLYGONS, _polygons_of)}
