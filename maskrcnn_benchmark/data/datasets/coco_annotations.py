"""Read a COCO instances json into flat arrays. Questionable entries are dropped, repaired or kept, and counted.

Shapes: I images, B boxes, K foreground classes, J keypoints of an object.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.categories import drop_placeholder_categories
from maskrcnn_benchmark.data.datasets.coco_columns import Columns
from maskrcnn_benchmark.data.datasets.coco_json import name_of_address, read_content
from maskrcnn_benchmark.data.datasets.coco_values import areas, flags, positions, whole_number
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport, shorten
from maskrcnn_benchmark.data.datasets.value_column import ValueColumn

# Boxes are clipped to this many pixels: beyond every image, and far below where float32 overflows.
FAR = 1e9

# Category ids must be smaller: JSON readers that use float64 round larger integers.
LARGEST_ID = 2**53

# Maximum number of category ids listed in an error.
SPELLED_OUT = 20


def read_coco(
    ann_file: str, report: DatasetReport, reading: Reading | None = None, *, crowd_masks: bool = False
) -> AnnotationTable:
    """Read a COCO json; "info", "licenses", and an annotation's "area", "iscrowd" and "segmentation" may be missing.

    Dropped and counted: annotations of images or categories that the file does not list; boxes that are missing,
    not finite, inverted, or at most one pixel wide or high (inclusive corners coincide: the forks dropped those too);
    repetitions of the same image or annotation. Different annotations with one id are kept, and noted. Masks and
    keypoints that are broken do not drop their box, see MaskColumns and KeypointColumns.

    Args:
        ann_file: the json.
        report: receives the findings.
        reading: options of the config; None is Reading().
        crowd_masks: read the masks of crowd regions too, as evaluation requires.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a COCO instances json, or one whose ids contradict each other.
    """
    read = partial(table_of, ann_file=ann_file, report=report, reading=reading, crowd_masks=crowd_masks)
    return read_content(ann_file, report, read)


def table_of(
    data: dict, ann_file: str, report: DatasetReport, reading: Reading | None = None, *, crowd_masks: bool = False
) -> AnnotationTable:
    """Build the table from the content of a COCO json, or from what another format's reader returns (records.py).

    Args:
        data: "categories", "images" and "annotations". "images" is removed once it is read, to save memory.
        ann_file: name of the source in errors.
        report, reading, crowd_masks: see `read_coco`.
    """
    reading = reading or Reading()
    category_ids, class_names = read_categories(data, ann_file, report)
    images = read_images(data, ann_file, report)
    image_ids, file_names = list(images), [image["file_name"] for image in images.values()]
    sizes = [(_side(image.get("width")), _side(image.get("height"))) for image in images.values()]
    del images, data["images"]
    rows, annotated = _annotations(data, ann_file, report, reading, crowd_masks, image_ids, category_ids)
    table = AnnotationTable(
        image_ids=image_ids,
        file_names=file_names,
        given_sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        category_ids=category_ids,
        class_names=class_names,
        keypoint_names=_keypoint_names(data, rows["keypoints"]),
        annotated=annotated,
        **rows,
    )
    if not reading.keep_placeholder_categories:
        drop_placeholder_categories(table, data["categories"], report)
    return table


def rows_of(data: dict, key: str, ann_file: str, required: tuple[str, ...]) -> list[dict]:
    """Check that data[key] is a list of objects with the required keys, and return it.

    Raises:
        ValueError: it is not; the first wrong entry is named.
    """
    table = data[key]
    if not isinstance(table, list):
        raise ValueError(f"'{key}' of {ann_file} is a {type(table).__name__}; wanted a list of objects")
    for number, row in enumerate(table):
        if not isinstance(row, dict):
            raise ValueError(f"'{key}' of {ann_file}: entry {number} is {row!r:.80}; wanted an object")
        for name in required:
            if name not in row:
                raise ValueError(f"'{key}' of {ann_file}: entry {number} has no '{name}': {row!r:.200}")
        if "id" in required and whole_number(row["id"]) is None and not isinstance(row["id"], (int, str)):
            raise ValueError(f"'{key}' of {ann_file}: entry {number} has id {row['id']!r:.80}; wanted a number or text")
    return table


def read_categories(data: dict, ann_file: str, report: DatasetReport) -> tuple[list, list[str]]:
    """Return the ids and the names of "categories", in the file's order."""
    if not data.get("categories"):
        raise ValueError(f"annotation file {ann_file} lists no categories: its classes are unknown")
    names: dict = {}
    as_text = []
    for category in rows_of(data, "categories", ann_file, ("id", "name")):
        given, name = category["id"], category["name"]
        if not isinstance(name, (str, int, float)) or name == "":
            raise ValueError(f"{ann_file}: category {given!r} has the name {name!r:.80}; wanted text")
        name, number = str(name), whole_number(given)
        if number is None or abs(number) >= LARGEST_ID:
            raise ValueError(f"{ann_file}: category {name!r} has id {given!r:.80}; wanted a whole number below 2^53")
        if not isinstance(given, int):
            as_text.append(repr(given))
        if names.setdefault(number, name) != name:
            raise ValueError(f"{ann_file}: category id {number} is both {names[number]!r} and {name!r}")
    report.add("repaired", "category ids of 'categories' that are not written as whole numbers", as_text, "ids")
    twice = sorted(name for name, count in Counter(names.values()).items() if count > 1)
    report.add("noted", "class names with more than one category id", twice, "names")
    return list(names), list(names.values())


def read_images(data: dict, ann_file: str, report: DatasetReport) -> dict:
    """Return the entries of "images" by id, sorted by id."""
    if "images" not in data:
        raise ValueError(f"annotation file {ann_file} has no 'images'; wanted a COCO instances file")
    for image in data["images"] if isinstance(data["images"], list) else ():
        if isinstance(image, dict) and "file_name" not in image and name_of_address(image.get("coco_url")):
            image["file_name"] = name_of_address(image["coco_url"])
    images: dict = {}
    repeated, shared = [], []
    ids_of_file: dict = {}
    for image in rows_of(data, "images", ann_file, ("id", "file_name")):
        if not isinstance(image["file_name"], str) or not image["file_name"]:
            raise ValueError(f"{ann_file}: image id {image['id']} has file name {image['file_name']!r}; wanted text")
        if "\0" in image["file_name"]:
            raise ValueError(f"{ann_file}: the file name of image id {image['id']} has a NUL character")
        # 7.0 is 7, but "7" stays text: results name images as the file does
        number = whole_number(image["id"]) if isinstance(image["id"], float) else image["id"]
        if ids_of_file.setdefault(image["file_name"], number) != number:
            shared.append(number)
        known = images.setdefault(number, image)
        if known is not image:
            if known["file_name"] != image["file_name"]:
                raise ValueError(
                    f"{ann_file}: image id {image['id']} is both {known['file_name']!r} and {image['file_name']!r}, so "
                    f"the image of an annotation is ambiguous. Give every image an id of its own."
                )
            repeated.append(image["id"])
    report.add("dropped", "repeated image entries", repeated, "image ids")
    report.add(
        "noted", "images whose file has another id too (each sees its own annotations only)", shared, "image ids"
    )
    # numbers before texts: a file may mix them, and Python cannot compare the two
    return {key: images[key] for key in sorted(images, key=lambda key: (isinstance(key, str), key))}


def _annotations(
    data: dict,
    ann_file: str,
    report: DatasetReport,
    reading: Reading,
    crowd_masks: bool,
    image_ids: list,
    category_ids: list,
) -> tuple[dict, np.ndarray]:
    """Return box, mask and keypoint arrays of AnnotationTable by field name, and (I,) bool "annotated"."""
    table = Columns(_rows(data.get("annotations"), ann_file), ann_file)
    ids, xywh, used = table.id, table.xywh, table.category_id
    image_index = positions(table.image_id, image_ids, report, "image")
    category = positions(used, category_ids, report, "category")
    _refuse_shifted_ids(used, category, category_ids, data, ann_file)
    report.add("repaired", "boxes written as text", [ids[i] for i in table.text_boxes])
    completed = [ids[i] for i in table.completed]
    report.add("repaired", "missing boxes, taken from the segmentation", completed)

    keep = np.ones(len(table), dtype=bool)

    def drop(what: str, bad: np.ndarray, hint: str = "") -> None:
        bad &= keep
        report.add("dropped", what, ids.where(bad), hint=hint)
        keep[bad] = False

    finite = np.isfinite(xywh).all(axis=1)
    sides = np.where(finite[:, None], xywh[:, 2:], 0.0)
    drop("annotations of unknown images", image_index < 0)
    drop("annotations of unknown categories", category < 0, _compared(used, category, category_ids))
    drop("repeated annotations", table.repeated(report))
    drop("boxes that are missing, not four numbers, or not finite", ~finite)
    drop("inverted boxes", (sides < 0).any(axis=1))
    drop("boxes without area (at most one pixel wide or high)", (sides <= 1).any(axis=1), _shares(xywh[finite]))

    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(image_index[rows], kind="stable")]
    xywh = table.xywh = xywh[rows].clip(-FAR, FAR)
    corners = xywh.astype(np.float32)
    corners[:, 2:] = corners[:, :2] + np.maximum(corners[:, 2:] - 1, 0)
    row_ids = ids.take(rows)
    crowd = flags(table.iscrowd.take(rows), row_ids, "iscrowd", ann_file, report)
    if reading.crowd_as_objects:
        places = row_ids.where(crowd)
        report.add("repaired", "crowd regions taken for objects", places, hint="DATASETS.CROWD_AS_OBJECTS")
        crowd[:] = False
    _note_same_boxes(xywh, image_index[rows], category[rows], row_ids, report)
    wanted = np.ones(len(rows), dtype=bool) if crowd_masks else ~crowd
    annotated = np.zeros(len(image_ids), dtype=bool)
    annotated[image_index[image_index >= 0]] = True
    fields = {
        "boxes": corners,
        "image_index": image_index[rows],
        "labels": category[rows] + 1,
        "crowd": crowd,
        "annotation_ids": row_ids,
        "masks": table.masks.table(rows, wanted, row_ids, report),
        "keypoints": table.keypoints.table(rows, row_ids, report),
        "xywh": xywh,
        "areas": areas(table.area.take(rows), row_ids, report),
    }
    return fields, annotated


def _rows(annotations, ann_file: str):
    """Return the entries of "annotations", which may be missing; an object or a number is refused."""
    if annotations is None:
        return []
    if isinstance(annotations, (dict, str, int, float)):
        return rows_of({"annotations": annotations}, "annotations", ann_file, ())
    return annotations


def _shares(xywh: np.ndarray) -> str:
    """Return a hint if all (B, 4) boxes seem to be relative to the image's size instead of in pixels, else ""."""
    if not len(xywh) or xywh.min() < 0 or xywh.max() > 1:
        return ""
    return "all coordinates are between 0 and 1; expected are pixels. Multiply them by the size of the image"


def _compared(used: ValueColumn, category: np.ndarray, category_ids: list) -> str:
    """List the category ids that are used but unknown, and those of "categories"."""
    unknown = list(dict.fromkeys(repr(used[i]) for i in np.flatnonzero(category < 0)))
    names = [
        ", ".join(map(shorten, some[:SPELLED_OUT])) + (", ..." if len(some) > SPELLED_OUT else "")
        for some in (unknown, category_ids)
    ]
    return f"of category ids {names[0]}; 'categories' lists {names[1]}"


def _refuse_shifted_ids(used: ValueColumn, category: np.ndarray, category_ids: list, data: dict, ann_file: str) -> None:
    """Raise ValueError if annotations count category ids from a different number than "categories" does.

    This is so if some used ids are not listed, and all used ids are listed ones plus 1, or all are listed ones minus 1.
    Dropping the unlisted ones would leave the rest with the wrong class.
    """
    if not (category < 0).any():
        return
    numbers = {whole_number(value) for value in used if isinstance(value, (int, float, str))}
    for shift, side in ((1, "more"), (-1, "less")):
        if numbers and None not in numbers and numbers <= {number + shift for number in category_ids}:
            names = {whole_number(entry["id"]): entry["name"] for entry in data["categories"]}
            listed = ", ".join(f"{number} ({names[number]})" for number in category_ids[:SPELLED_OUT])
            raise ValueError(
                f"{ann_file}: 'annotations' use the category ids {', '.join(map(str, sorted(numbers)[:SPELLED_OUT]))}, "
                f"'categories' lists {listed}: each is one {side} than a listed one. Count both from the same number."
            )


def _note_same_boxes(
    xywh: np.ndarray, image_index: np.ndarray, category: np.ndarray, ids: ValueColumn, report: DatasetReport
) -> None:
    """Report annotations with the image, class and box of an earlier one."""
    keys = np.column_stack([image_index, category, xywh]) + 0.0  # -0 becomes 0
    hashes = np.zeros(len(keys), dtype=np.uint64)
    for column in keys.T:
        hashes = (hashes ^ (hashes >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + column.view(np.uint64)
    # Only rows with equal hashes are compared: sorting a million rows by six keys takes seconds.
    order = np.argsort(hashes)
    equal = hashes[order[1:]] == hashes[order[:-1]]
    rows = np.union1d(order[1:][equal], order[:-1][equal])
    keys = keys[rows]
    order = np.lexsort(keys.T[::-1])
    same = np.flatnonzero((keys[order][1:] == keys[order][:-1]).all(axis=1)) + 1
    what = "annotations with image, class and box of another, under another id"
    report.add("noted", what, [ids[i] for i in rows[order[same]]])


def _keypoint_names(data: dict, keypoints: np.ndarray | None) -> list[str] | None:
    """Return the keypoint names of the first category that has as many as the annotations have keypoints."""
    if keypoints is None:
        return None
    for category in data["categories"]:
        names = category.get("keypoints")
        if isinstance(names, list) and len(names) == keypoints.shape[1]:
            return [str(name) for name in names]
    return None


def _side(value) -> int:
    """Return a width or height as an integer; 0 for anything that is not a positive number."""
    return int(value) if isinstance(value, (int, float)) and 0 < value < 2**31 else 0
