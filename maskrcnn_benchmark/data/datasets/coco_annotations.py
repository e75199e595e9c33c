"""Reading a COCO instances json into flat arrays, with everything questionable decided and counted.

Shapes: I pictures, B boxes, K foreground classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.data.datasets.report import DatasetReport

# A picture of a keypoint file is trained on when its annotations have this many visible keypoints together.
MIN_VISIBLE_KEYPOINTS = 10

# Pixels. Farther out than any picture reaches, and far from where float32 overflows.
FAR = 1e9


@dataclass
class CocoAnnotations:
    """What an annotation file says, pictures sorted by id, boxes sorted by picture and then as in the file.

    image_ids: I ids. file_names: I texts. json_sizes: (I, 2) int64 width, height; 0 where the file does not say.
    category_ids, class_names: K each, in the file's order: label k is the k-th category, counted from 1.
    boxes: (B, 4) float32, inclusive corners x1, y1, x2, y2 in pixels of the picture; none is empty.
    picture: (B,) int64, index of the box's picture. labels: (B,) int64, 1..K. crowd: (B,) bool.
    annotation_ids: B ids. visible_keypoints: (B,) int64, or None when no annotation has keypoints.
    """

    image_ids: list
    file_names: list[str]
    json_sizes: np.ndarray
    category_ids: list
    class_names: list[str]
    boxes: np.ndarray
    picture: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    annotation_ids: list
    visible_keypoints: np.ndarray | None

    def select_boxes(self, keep: np.ndarray) -> None:
        """Keeps the boxes where `keep`, (B,) bool, is true."""
        self.boxes, self.picture = self.boxes[keep], self.picture[keep]
        self.labels, self.crowd = self.labels[keep], self.crowd[keep]
        self.annotation_ids = [self.annotation_ids[i] for i in np.flatnonzero(keep)]
        if self.visible_keypoints is not None:
            self.visible_keypoints = self.visible_keypoints[keep]

    def select_pictures(self, keep: np.ndarray) -> None:
        """Keeps the pictures where `keep`, (I,) bool, is true, and their boxes."""
        self.select_boxes(keep[self.picture])
        self.picture = (np.cumsum(keep) - 1)[self.picture]
        kept = np.flatnonzero(keep)
        self.image_ids = [self.image_ids[i] for i in kept]
        self.file_names = [self.file_names[i] for i in kept]
        self.json_sizes = self.json_sizes[kept]

    def pictures_to_train_on(self) -> np.ndarray:
        """(I,) bool: the picture has a box (crowd counts, as in the forks) and in a keypoint file enough keypoints."""
        count = len(self.image_ids)
        keep = np.bincount(self.picture, minlength=count) > 0
        if self.visible_keypoints is not None:
            visible = np.bincount(self.picture, weights=self.visible_keypoints, minlength=count)
            keep &= visible >= MIN_VISIBLE_KEYPOINTS
        return keep


def read_coco(ann_file: str, report: DatasetReport) -> CocoAnnotations:
    """Reads a COCO json; "info", "licenses", and an annotation's "area", "iscrowd" and "segmentation" may be missing.

    Dropped and counted: annotations of pictures or categories that the file does not list; boxes that are missing,
    not finite, inverted, or at most one pixel wide or high (inclusive corners coincide: the forks dropped those too);
    repetitions of the same picture or annotation. Different annotations with one id are kept, and noted.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a COCO instances json, or one whose ids contradict each other.
    """
    data = _load(ann_file)
    category_ids, class_names = _categories(data, ann_file, report)
    images = _images(data, ann_file, report)
    image_ids = list(images)
    rows = _annotations(data, ann_file, report, image_ids, category_ids)
    sizes = [(_side(image.get("width")), _side(image.get("height"))) for image in images.values()]
    return CocoAnnotations(
        image_ids=image_ids,
        file_names=[image["file_name"] for image in images.values()],
        json_sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        category_ids=category_ids,
        class_names=class_names,
        **rows,
    )


def _load(ann_file: str) -> dict:
    try:
        with open(ann_file, encoding="utf-8") as file:
            data = json.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"annotation file {ann_file} does not exist. Is the data folder right (DATASETS.ROOT, or $MB_DATASETS)?"
        ) from None
    except (ValueError, RecursionError) as error:  # bad JSON and bad UTF-8 are both ValueErrors
        raise ValueError(f"annotation file {ann_file} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"annotation file {ann_file} holds a {type(data).__name__}; wanted a COCO instances file: an object with "
            f"'images', 'annotations' and 'categories'. (A list is what results look like.)"
        )
    return data


def _table(data: dict, key: str, ann_file: str, required: tuple[str, ...]) -> list[dict]:
    table = data[key]
    if not isinstance(table, list):
        raise ValueError(f"'{key}' of {ann_file} is a {type(table).__name__}; wanted a list of objects")
    for number, row in enumerate(table):
        if not isinstance(row, dict):
            raise ValueError(f"'{key}' of {ann_file}: entry {number} is {row!r:.80}; wanted an object")
        for name in required:
            if name not in row:
                raise ValueError(f"'{key}' of {ann_file}: entry {number} has no '{name}': {row!r:.200}")
        if "id" in required and not isinstance(row["id"], (int, str)):
            raise ValueError(f"'{key}' of {ann_file}: entry {number} has id {row['id']!r:.80}; wanted a number or text")
    return table


def _categories(data: dict, ann_file: str, report: DatasetReport) -> tuple[list, list[str]]:
    if not data.get("categories"):
        raise ValueError(f"annotation file {ann_file} lists no categories: its classes are unknown")
    names: dict = {}
    for category in _table(data, "categories", ann_file, ("id", "name")):
        number, name = category["id"], str(category["name"])
        if not isinstance(number, int):
            raise ValueError(f"{ann_file}: category {name!r} has id {number!r}; wanted a whole number")
        if names.setdefault(number, name) != name:
            raise ValueError(f"{ann_file}: category id {number} is both {names[number]!r} and {name!r}")
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    report.add("noted", "class names with more than one category id", twice, "names")
    return list(names), list(names.values())


def _images(data: dict, ann_file: str, report: DatasetReport) -> dict:
    """The entries of "images" by id, sorted by id."""
    if "images" not in data:
        raise ValueError(f"annotation file {ann_file} has no 'images'; wanted a COCO instances file")
    images: dict = {}
    repeated = []
    for image in _table(data, "images", ann_file, ("id", "file_name")):
        if not isinstance(image["file_name"], str) or not image["file_name"]:
            raise ValueError(f"{ann_file}: image id {image['id']} has file name {image['file_name']!r}; wanted text")
        if "\0" in image["file_name"]:
            raise ValueError(f"{ann_file}: the file name of image id {image['id']} has a NUL character")
        known = images.setdefault(image["id"], image)
        if known is not image:
            if known["file_name"] != image["file_name"]:
                raise ValueError(
                    f"{ann_file}: image id {image['id']} is both {known['file_name']!r} and {image['file_name']!r}, so "
                    f"nobody can tell whose its annotations are. Give every picture an id of its own."
                )
            repeated.append(image["id"])
    report.add("dropped", "repeated image entries", repeated, "image ids")
    # numbers before texts: a file may mix them, Python does not compare them
    return {key: images[key] for key in sorted(images, key=lambda key: (isinstance(key, str), key))}


def _annotations(data: dict, ann_file: str, report: DatasetReport, image_ids: list, category_ids: list) -> dict:
    """The box arrays of CocoAnnotations, by field name."""
    table = _table({"annotations": data.get("annotations", [])}, "annotations", ann_file, ())
    ids = [row.get("id") for row in table]
    picture = _positions([row.get("image_id") for row in table], image_ids)
    category = _positions([row.get("category_id") for row in table], category_ids)
    xywh = _boxes([row.get("bbox") for row in table])
    keypoints = [row.get("keypoints") for row in table]

    keep = np.ones(len(table), dtype=bool)

    def drop(what: str, bad: np.ndarray) -> None:
        bad &= keep
        report.add("dropped", what, [ids[i] for i in np.flatnonzero(bad)])
        keep[bad] = False

    finite = np.isfinite(xywh).all(axis=1)
    sides = np.where(finite[:, None], xywh[:, 2:], 0.0)
    drop("annotations of unknown pictures", picture < 0)
    drop("annotations of unknown categories", category < 0)
    drop("repeated annotations", _repeated(table, ids, report))
    drop("boxes that are missing, not four numbers, or not finite", ~finite)
    drop("inverted boxes", (sides < 0).any(axis=1))
    drop("boxes without area (at most one pixel wide or high)", (sides <= 1).any(axis=1))

    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(picture[rows], kind="stable")]
    boxes = xywh[rows].clip(-FAR, FAR).astype(np.float32)
    boxes[:, 2:] = boxes[:, :2] + np.maximum(boxes[:, 2:] - 1, 0)
    visible = None
    if any(keypoints):
        visible = np.array([_visible(keypoints[i]) for i in rows], dtype=np.int64)
    return {
        "boxes": boxes,
        "picture": picture[rows],
        "labels": category[rows] + 1,
        "crowd": np.array([bool(table[i].get("iscrowd")) for i in rows], dtype=bool),
        "annotation_ids": [ids[i] for i in rows],
        "visible_keypoints": visible,
    }


def _positions(values: list, known: list) -> np.ndarray:
    """(len(values),) int64: the place of each value in `known`, -1 for one that is not there."""
    places = {value: place for place, value in enumerate(known)}
    try:
        found = [places.get(value, -1) for value in values]
    except TypeError:  # an id that is a list or an object
        found = [places.get(value, -1) if isinstance(value, (int, str)) else -1 for value in values]
    return np.array(found, dtype=np.int64)


def _boxes(boxes: list) -> np.ndarray:
    """(len(boxes), 4) float64; NaN where an entry is not four numbers."""
    if not boxes:
        return np.zeros((0, 4))
    try:
        array = np.array(boxes, dtype=np.float64)
        if array.shape == (len(boxes), 4):
            return array
    except (TypeError, ValueError, OverflowError):
        pass
    array = np.full((len(boxes), 4), np.nan)
    for row, box in zip(array, boxes, strict=True):
        try:
            if len(box) == 4 and not isinstance(box, str):
                row[:] = [float(value) for value in box]
        except (TypeError, ValueError, OverflowError, KeyError):
            row[:] = np.nan  # the row may be half written
    return array


def _repeated(table: list[dict], ids: list, report: DatasetReport) -> np.ndarray:
    """(len(table),) bool: an earlier annotation has the same id and says the same."""
    repeated = np.zeros(len(table), dtype=bool)
    keys = [repr(number) for number in ids]
    if len(set(keys)) == len(keys):
        return repeated
    first: dict[str, dict] = {}
    reused = []
    for i, (key, row) in enumerate(zip(keys, table, strict=True)):
        if ids[i] is None:
            continue  # annotations without ids are not repetitions of each other
        known = first.setdefault(key, row)
        if known is not row:
            same = all(known.get(name) == row.get(name) for name in ("image_id", "category_id", "bbox"))
            repeated[i] = same
            if not same:
                reused.append(ids[i])
    report.add("noted", "annotation ids used for different annotations", reused)
    return repeated


def _side(value) -> int:
    """A width or height of the json; 0 for anything that is not a positive number."""
    return int(value) if isinstance(value, (int, float)) and 0 < value < 2**31 else 0


def _visible(keypoints) -> int:
    if not isinstance(keypoints, list):
        return 0
    return sum(1 for flag in keypoints[2::3] if isinstance(flag, (int, float)) and flag > 0)
