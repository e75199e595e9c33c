"""Records: the common form in which the readers of all annotation formats return annotations.

A reader of a format is a function that returns a dict of three entries, named as in a COCO file. `table_of`
(coco_annotations.py) converts it to an `AnnotationTable`. It drops or repairs questionable entries and counts them, so
that all formats follow the same rules. `BoxDataset(lambda: table_of(read_my_format(path), path, report), ...,
sources=Sources(path, arguments, lambda: ([path], {})))` caches the result in a table file (table_cache.py).

    def read_my_format(path: str) -> dict:
        return {
            "categories": [{"id": 1, "name": "bee"}],
            "images": [{"id": "a", "file_name": "a.jpg", "width": 640, "height": 480}],
            "annotations": (
                ObjectRecord(id="a.txt#1", image_id="a", category_id=1, bbox=[1, 2, 30, 40]) for ... in ...
            ),
        }

categories: in the order of labels, with "id" (whole number) and "name", optionally "supercategory" and "keypoints" (a
    list of names).
images: with "id" (number or text) and "file_name", optionally "width" and "height" in pixels.
annotations: any iterable of ObjectRecord, or of dicts with the same keys. Each record is dropped once its numbers are
    in flat arrays, so that a generator needs memory for a few thousand objects at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

# Records that are turned into arrays at a time.
BATCH = 4096


class ObjectRecord(msgspec.Struct, gc=False):
    """Annotated object with the keys of COCO's "annotations". Every value may be missing or of another type.

    Attributes:
        id: name of the object in reports, a number or text such as "0001.txt#3".
        image_id, category_id: ids of the reader's "images" and "categories".
        bbox: x, y, width, height in pixels. Missing: taken from the segmentation.
        segmentation: polygons [[x, y, x, y, ...], ...] in pixels, or COCO's RLE object.
        iscrowd: 1 for a region of many objects, which is neither trained on nor evaluated.
        area: square pixels, for COCO's size ranges. Missing: the box's.
        keypoints: [x, y, visibility, ...].
    """

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    segmentation: Any = None
    iscrowd: Any = None
    area: Any = None
    keypoints: Any = None


FIELDS = ObjectRecord.__struct_fields__


def batches(rows: Iterable, source: str) -> Iterator[list[ObjectRecord]]:
    """Yield the rows as records, BATCH at a time.

    Args:
        rows: ObjectRecord, or dicts with its keys.
        source: annotation file, for errors.

    Raises:
        ValueError: a row is neither an ObjectRecord nor a dict.
    """
    rows, number = iter(rows), 0
    while batch := list(islice(rows, BATCH)):
        yield [
            row if isinstance(row, ObjectRecord) else _record(row, i, source)
            for i, row in enumerate(batch, start=number)
        ]
        number += len(batch)


def _record(row, number: int, source: str) -> ObjectRecord:
    if not isinstance(row, dict):
        raise ValueError(f"'annotations' of {source}: entry {number} is {row!r:.80}; wanted an object")
    return ObjectRecord(*map(row.get, FIELDS))
