"""Reading a COCO instances json into flat arrays, with everything questionable decided and counted.

Shapes: I pictures, B boxes, K foreground classes, J keypoints of an object.
"""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.categories import drop_placeholder_categories
from maskrcnn_benchmark.data.datasets.coco_values import areas, boxes, flags, positions, whole_number
from maskrcnn_benchmark.data.datasets.mask_table import read_masks
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.segmentation_values import bounds_of
from maskrcnn_benchmark.utils.text_file import NotAFileError, did_you_mean, read_text

# Pixels. Farther out than any picture reaches, and far from where float32 overflows.
FAR = 1e9

# Beyond, not every JSON reader and evaluator has whole numbers.
LARGEST_ID = 2**53

# so many category ids are spelled out in an error
SPELLED_OUT = 20


def read_coco(
    ann_file: str, report: DatasetReport, reading: Reading | None = None, *, crowd_masks: bool = False
) -> AnnotationTable:
    """Read a COCO json; "info", "licenses", and an annotation's "area", "iscrowd" and "segmentation" may be missing.

    Dropped and counted: annotations of images or categories that the file does not list; boxes that are missing,
    not finite, inverted, or at most one pixel wide or high (inclusive corners coincide: the forks dropped those too);
    repetitions of the same image or annotation. Different annotations with one id are kept, and noted. Masks and
    keypoints that are broken do not drop their box, see `read_masks` and `_keypoints`.

    Args:
        reading: choices of the configuration; None takes its defaults.
        crowd_masks: read the masks of crowd regions too, as evaluation requires.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a COCO instances json, or one whose ids contradict each other.
    """
    return table_of(load_json(ann_file), ann_file, report, reading, crowd_masks=crowd_masks)


def table_of(
    data: dict, ann_file: str, report: DatasetReport, reading: Reading | None = None, *, crowd_masks: bool = False
) -> AnnotationTable:
    """The same for what such a file holds; `ann_file` is what errors call it."""
    reading = reading or Reading()
    category_ids, class_names = read_categories(data, ann_file, report)
    images = read_images(data, ann_file, report)
    image_ids = list(images)
    rows, annotated = _annotations(data, ann_file, report, reading, crowd_masks, image_ids, category_ids)
    sizes = [(_side(image.get("width")), _side(image.get("height"))) for image in images.values()]
    table = AnnotationTable(
        image_ids=image_ids,
        file_names=[image["file_name"] for image in images.values()],
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


def load_json(ann_file: str) -> dict:
    """What a COCO json holds.

    Raises:
        FileNotFoundError: no such file.
        OSError: it is a folder, a named pipe, a socket or a device.
        ValueError: it is not text in UTF-8, UTF-16 or UTF-32, not JSON, or no object.
    """
    try:
        text = read_text(ann_file)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"annotation file {ann_file} does not exist.{did_you_mean(ann_file)} Is the data folder right "
            "(DATASETS.ROOT, or $MB_DATASETS)?"
        ) from None
    except (NotAFileError, ValueError) as error:
        raise type(error)(f"annotation file (ANNOTATIONS) {error}") from None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"annotation file {ann_file} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"annotation file {ann_file} holds a {type(data).__name__}; wanted a COCO instances file: an object with "
            f"'images', 'annotations' and 'categories'. (A list is what results look like.)"
        )
    return data


def rows_of(data: dict, key: str, ann_file: str, required: tuple[str, ...]) -> list[dict]:
    """data[key], checked to be a list of objects which all have the required keys."""
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
    """Ids and names of "categories", in the file's order."""
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
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    report.add("noted", "class names with more than one category id", twice, "names")
    return list(names), list(names.values())


def read_images(data: dict, ann_file: str, report: DatasetReport) -> dict:
    """The entries of "images" by id, sorted by id."""
    if "images" not in data:
        raise ValueError(f"annotation file {ann_file} has no 'images'; wanted a COCO instances file")
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
                    f"nobody can tell whose its annotations are. Give every picture an id of its own."
                )
            repeated.append(image["id"])
    report.add("dropped", "repeated image entries", repeated, "image ids")
    report.add(
        "noted", "images whose file has another id too (each sees its own annotations only)", shared, "image ids"
    )
    # numbers before texts: a file may mix them, Python does not compare them
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
    """The box, mask and keypoint arrays of AnnotationTable, by field name; and (I,) bool "annotated"."""
    rows = [] if data.get("annotations") is None else data["annotations"]
    table = rows_of({"annotations": rows}, "annotations", ann_file, ())
    ids = [row.get("id") for row in table]
    picture = positions([row.get("image_id") for row in table], image_ids, report, "image")
    used = [row.get("category_id") for row in table]
    category = positions(used, category_ids, report, "category")
    _refuse_shifted_ids(used, category, category_ids, data, ann_file)
    xywh = boxes([row.get("bbox") for row in table], ids, report)
    _complete_boxes(xywh, table, ids, report)

    keep = np.ones(len(table), dtype=bool)

    def drop(what: str, bad: np.ndarray, hint: str = "") -> None:
        bad &= keep
        report.add("dropped", what, [ids[i] for i in np.flatnonzero(bad)], hint=hint)
        keep[bad] = False

    finite = np.isfinite(xywh).all(axis=1)
    sides = np.where(finite[:, None], xywh[:, 2:], 0.0)
    drop("annotations of unknown pictures", picture < 0)
    drop("annotations of unknown categories", category < 0, _compared(used, category, category_ids))
    drop("repeated annotations", _repeated(table, ids, report))
    drop("boxes that are missing, not four numbers, or not finite", ~finite)
    drop("inverted boxes", (sides < 0).any(axis=1))
    drop("boxes without area (at most one pixel wide or high)", (sides <= 1).any(axis=1))

    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(picture[rows], kind="stable")]
    xywh = xywh[rows].clip(-FAR, FAR)
    corners = xywh.astype(np.float32)
    corners[:, 2:] = corners[:, :2] + np.maximum(corners[:, 2:] - 1, 0)
    row_ids = [ids[i] for i in rows]
    crowd = flags([table[i].get("iscrowd") for i in rows], row_ids, "iscrowd", ann_file, report)
    if reading.crowd_as_objects:
        places = [row_ids[i] for i in np.flatnonzero(crowd)]
        report.add("repaired", "crowd regions taken for objects", places, hint="DATASETS.CROWD_AS_OBJECTS")
        crowd[:] = False
    _note_same_boxes(xywh, picture[rows], category[rows], row_ids, report)
    wanted = np.ones(len(rows), dtype=bool) if crowd_masks else ~crowd
    annotated = np.zeros(len(image_ids), dtype=bool)
    annotated[picture[picture >= 0]] = True
    fields = {
        "boxes": corners,
        "picture": picture[rows],
        "labels": category[rows] + 1,
        "crowd": crowd,
        "annotation_ids": row_ids,
        "masks": read_masks([table[i].get("segmentation") for i in rows], wanted, row_ids, report),
        "keypoints": _keypoints([table[i].get("keypoints") for i in rows], row_ids, report),
        "xywh": xywh,
        "areas": areas([table[i].get("area") for i in rows], row_ids, report),
    }
    return fields, annotated


def _compared(used: list, category: np.ndarray, category_ids: list) -> str:
    """Which category ids are used though unknown, and which are listed."""
    unknown = list(dict.fromkeys(repr(used[i])[:SPELLED_OUT] for i in np.flatnonzero(category < 0)))
    names = [
        ", ".join(map(str, some[:SPELLED_OUT])) + (", ..." if len(some) > SPELLED_OUT else "")
        for some in (unknown, category_ids)
    ]
    return f"of category ids {names[0]}; 'categories' lists {names[1]}"


def _complete_boxes(xywh: np.ndarray, table: list[dict], ids: list, report: DatasetReport) -> None:
    """Fill in boxes that are missing, or 0 pixels wide and high, from the segmentation where there is one."""
    lacking = ~np.isfinite(xywh).all(axis=1) | (xywh[:, 2:] == 0).all(axis=1)
    completed = []
    for i in np.flatnonzero(lacking):
        found = bounds_of(table[i].get("segmentation"))
        if found is not None:
            xywh[i] = found
            completed.append(ids[i])
    report.add("repaired", "missing boxes, taken from the segmentation", completed)


def _refuse_shifted_ids(used: list, category: np.ndarray, category_ids: list, data: dict, ann_file: str) -> None:
    """Refuse category ids that count from another number than those of "categories".

    Raises:
        ValueError: every id that annotations use is one more, or one less, than a listed one, and not every one is
            listed: the others would silently be of the wrong class.
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
    xywh: np.ndarray, picture: np.ndarray, category: np.ndarray, ids: list, report: DatasetReport
) -> None:
    """Note annotations that have image, class and box of an earlier one."""
    if len(xywh) < 2:
        return
    keys = np.ascontiguousarray(np.column_stack([picture, category, xywh]), dtype=np.float64)
    order = np.lexsort(keys.T[::-1])
    same = np.flatnonzero((keys[order][1:] == keys[order][:-1]).all(axis=1)) + 1
    what = "annotations with image, class and box of another, under another id"
    report.add("noted", what, [ids[i] for i in order[same]])


def _keypoints(keypoints: list, ids: list, report: DatasetReport) -> np.ndarray | None:
    """(B, J, 3) float32 where most entries have J keypoints; None when there is none.

    Entries that are missing or broken become zeros, which means not visible; broken ones are counted.
    """
    lengths = Counter(len(entry) for entry in keypoints if isinstance(entry, list) and entry)
    if not lengths:
        return None
    count = max(lengths, key=lambda length: (length % 3 == 0, lengths[length])) // 3
    table = np.zeros((len(keypoints), count, 3), dtype=np.float32)
    broken = []
    for row, entry, number in zip(table.reshape(len(keypoints), -1), keypoints, ids, strict=True):
        if entry is None or entry == []:
            continue
        try:
            row[:] = np.array(entry if isinstance(entry, list) else [], dtype=np.float32)
        except (TypeError, ValueError, OverflowError):
            row[:] = np.nan  # of another length, or not numbers
        if not np.isfinite(row).all():
            row[:] = 0
            broken.append(number)
    what = f"broken keypoints (not {count} times three finite numbers), taken for not visible"
    report.add("repaired", what, broken)
    return table


def _keypoint_names(data: dict, keypoints: np.ndarray | None) -> list[str] | None:
    """What the first category with as many names calls the keypoints."""
    if keypoints is None:
        return None
    for category in data["categories"]:
        names = category.get("keypoints")
        if isinstance(names, list) and len(names) == keypoints.shape[1]:
            return [str(name) for name in names]
    return None


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
