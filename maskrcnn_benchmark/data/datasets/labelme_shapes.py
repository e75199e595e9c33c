"""Convert the shapes of LabelMe json files to objects."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from maskrcnn_benchmark.data.datasets.coco_values import real_number, whole_number
from maskrcnn_benchmark.data.datasets.records import ObjectRecord
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.structures.rle import encode_window
from maskrcnn_benchmark.utils.text_file import decode_text, open_regular

# LabelMe's converters leave these out.
IGNORED_LABELS = frozenset(("__ignore__", "_background_"))

# Types of shapes that enclose no area.
WITHOUT_AREA = ("point", "points", "line", "linestrip")

# Corners of the polygon that approximates a circle; its area is 0.2 % smaller.
CIRCLE_CORNERS = 64

MISSING = "shapes without a label"
IGNORED = "shapes labelled __ignore__ or _background_"
NO_AREA = "points and lines, which are no objects"
BROKEN = "shapes whose points are too few or not finite numbers"


class Shape(msgspec.Struct, gc=False):
    """An entry of "shapes". Every value may be missing or odd."""

    label: Any = None
    points: Any = None
    shape_type: Any = None
    group_id: Any = None
    mask: Any = None


class LabelMeFile(msgspec.Struct, gc=False):
    """A LabelMe json, with only the keys that are used."""

    shapes: list[Shape]
    imagePath: Any = None  # noqa: N815
    imageWidth: Any = None  # noqa: N815
    imageHeight: Any = None  # noqa: N815
    imageData: msgspec.Raw = msgspec.Raw(b"null")  # noqa: N815  # most of the file's text

    @property
    def is_embedded(self) -> bool:
        return len(bytes(self.imageData)) > len('"null"')


def read_file(path: str) -> LabelMeFile | None:
    """Read a LabelMe json; None for a json of another kind.

    Raises:
        ValueError: it is not JSON, or its "shapes" are not a list of objects.
    """
    with open_regular(path) as file:
        data = file.read()
    try:
        return msgspec.json.decode(data, type=LabelMeFile)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    try:
        content = json.loads(decode_text(data, path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"annotation file {path} is not JSON: {error}") from error
    if not isinstance(content, dict) or "shapes" not in content:
        return None
    shapes = content["shapes"]
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise ValueError(f"'shapes' of {path} is {shapes!r:.80}; expected a list of objects")
    rows = [Shape(*map(shape.get, Shape.__struct_fields__)) for shape in shapes]
    raw = msgspec.Raw(msgspec.json.encode(content.get("imageData")))
    return LabelMeFile(rows, *map(content.get, ("imagePath", "imageWidth", "imageHeight")), raw)


def objects_of(
    files: dict[str, LabelMeFile], class_names: Sequence[str], report: DatasetReport
) -> Iterator[ObjectRecord]:
    """Yield the objects of all files, which are given by image id. Category id k is the k-th name, counted from 1."""
    numbers = {name: k for k, name in enumerate(class_names, start=1)}
    odd: dict[str, list[str]] = defaultdict(list)
    for image_id, file in files.items():
        groups: dict[tuple, ObjectRecord] = {}
        for number, shape in enumerate(file.shapes, start=1):
            where = f"{os.path.basename(image_id)}.json#{number}"
            trouble = _trouble(shape)
            record = None if trouble else _record(shape, file)
            if record is None:
                odd[trouble or BROKEN].append(where)
                continue
            label = str(shape.label)
            record.id, record.image_id = where, image_id
            record.category_id = numbers.get(label, f"label {label!r}")
            if shape.group_id is not None and shape.shape_type != "mask":
                _complete(record)
                known = groups.setdefault((label, repr(shape.group_id)), record)
                if known is not record:
                    _join(known, record)
                    odd["joined"].append(where)
            else:
                yield record
        yield from groups.values()
    report.add("noted", "shapes joined with others of their label and group_id", odd["joined"], "shapes")
    for what in (MISSING, IGNORED, NO_AREA, BROKEN):
        report.add("dropped", what, odd[what], "shapes")


def _trouble(shape: Shape) -> str | None:
    if shape.label is None or str(shape.label) == "":
        return MISSING
    if str(shape.label) in IGNORED_LABELS:
        return IGNORED
    return NO_AREA if shape.shape_type in WITHOUT_AREA else None


def _record(shape: Shape, file: LabelMeFile) -> ObjectRecord | None:
    """Return the object of a shape without its ids; None if its points are broken."""
    points = _points(shape.points)
    if points is None:
        return None
    kind = shape.shape_type or "polygon"  # old files do not have it
    if kind == "circle":
        return _circle(*points) if len(points) == 2 else None
    if kind == "mask":
        return _mask(shape, points, file) if len(points) == 2 else None
    if kind == "rectangle" or len(points) == 2:
        # with four points in other programs; LabelMe's two may be any two opposite corners
        return ObjectRecord(bbox=_bounds(points)) if len(points) in (2, 4) and kind == "rectangle" else None
    if len(points) < 3:
        return None
    return ObjectRecord(bbox=_bounds(points), segmentation=[[number for point in points for number in point]])


def _points(points) -> list[list[float]] | None:
    if not isinstance(points, list) or not points:
        return None
    found = [[real_number(n) for n in point] if isinstance(point, list) else [] for point in points]
    return found if all(len(point) == 2 and all(map(math.isfinite, point)) for point in found) else None


def _bounds(points: list[list[float]]) -> list[float]:
    xs, ys = zip(*points, strict=True)
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _circle(center: list[float], edge: list[float]) -> ObjectRecord:
    (x, y), radius = center, math.dist(center, edge)
    angles = [2 * math.pi * k / CIRCLE_CORNERS for k in range(CIRCLE_CORNERS)]
    polygon = [n for a in angles for n in (x + radius * math.cos(a), y + radius * math.sin(a))]
    return ObjectRecord(bbox=[x - radius, y - radius, 2 * radius, 2 * radius], segmentation=[polygon])


def _mask(shape: Shape, points: list[list[float]], file: LabelMeFile) -> ObjectRecord:
    """Return the object of a PNG that fills the box between two pixels; only the box if the PNG cannot be read."""
    left, top, width, height = _bounds(points)
    record = ObjectRecord(bbox=[left, top, width + 1, height + 1])
    size = whole_number(file.imageWidth), whole_number(file.imageHeight)
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.mask))) as image:
            window = np.asarray(image.convert("L")) > 0
        left, top = round(left), round(top)
        window = window[max(-top, 0) : size[1] - top, max(-left, 0) : size[0] - left]
        if window.any():
            record.segmentation = encode_window(window, max(left, 0), max(top, 0), size[1], size[0])
    except (TypeError, ValueError, OSError):
        record.segmentation = {}  # counted as a broken mask
    return record


def _complete(record: ObjectRecord) -> None:
    """Add its outline as segmentation to a rectangle that belongs to a group."""
    if record.segmentation is None:
        x, y, w, h = record.bbox
        record.segmentation = [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _join(known: ObjectRecord, record: ObjectRecord) -> None:
    known.segmentation += record.segmentation
    corners = [[x + i * w, y + i * h] for x, y, w, h in (known.bbox, record.bbox) for i in (0, 1)]
    known.bbox = _bounds(corners)
