"""Read a COCO panoptic json into flat arrays. Questionable entries are dropped or repaired, and counted.

Shapes: I images, S segments of all images together, K thing classes, T stuff classes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.coco_annotations import (
    read_categories,
    read_coco,
    read_images,
    rows_of,
    table_of,
)
from maskrcnn_benchmark.data.datasets.coco_json import load_json
from maskrcnn_benchmark.data.datasets.coco_values import flag, flags, positions, whole_number
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.structures.panoptic_map import VOID
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL

# Placeholders are kept, because things and segments must have the same categories.
ALL_CATEGORIES = Reading(keep_placeholder_categories=True)

# Segment ids are 24-bit colours.
MAX_ID = 2**24 - 1


@dataclass
class SegmentTable:
    """Segments of a panoptic json.

    Attributes:
        files: I file names of segment maps, by image id.
        rows: I slices of the arrays below, by image id.
        ids: (S,) int64, R + 256 G + 65536 B, unique within an image.
        classes: (S,) int64, 0..K-1 for things and K..K+T-1 for stuff, each in file order.
        crowd: (S,) bool.
        category_ids, names: K + T each.
        num_things: K.
    """

    files: dict
    rows: dict
    ids: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    category_ids: list
    names: list[str]
    num_things: int


def read_panoptic(
    ann_file: str, instances_file: str | None, report: DatasetReport
) -> tuple[AnnotationTable, SegmentTable]:
    """Read a COCO panoptic json, and its objects from the segments or from an instances json.

    Dropped and counted, besides what `read_coco` drops:
    - images without a panoptic annotation;
    - annotations of unknown images, and second annotations of an image;
    - segments with an unknown category, with an id that is not a 24-bit colour, or with a repeated id.
    The pixels of a dropped segment are unlabelled.

    Args:
        ann_file: COCO panoptic json.
        instances_file: COCO instances json with the same thing categories; None makes objects from the segments.
        report: receives the findings.

    Returns:
        The objects of the K thing classes, and all segments.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: ann_file is not a COCO panoptic json, or the two files contradict each other.
    """
    data = load_json(ann_file)
    images = read_images(data, ann_file, report)
    segments, boxes = _read_segments(data, ann_file, images, report)
    if instances_file is None:
        annotated = [images[image_id] for image_id in segments.files]
        return _things_as_objects(data, annotated, ann_file, segments, boxes, report), segments
    table = read_coco(instances_file, report, ALL_CATEGORIES)
    _check_same_things(table, segments, instances_file, ann_file)
    known = set(table.image_ids)
    lacking = [image_id for image_id in segments.files if image_id not in known]
    if lacking:
        raise ValueError(
            f"{instances_file} lacks {len(lacking):,} of the images that {ann_file} annotates, image id {lacking[0]} "
            "among them. Give the instances file of the same images, or none."
        )
    table.select_images(np.array([image_id in segments.files for image_id in table.image_ids], dtype=bool))
    return table, segments


def _read_segments(data: dict, ann_file: str, images: dict, report: DatasetReport) -> tuple[SegmentTable, list]:
    """Return the segments, and their S "bbox" entries."""
    category_ids, names = read_categories(data, ann_file, DatasetReport(report.name))  # reported with the objects
    kinds = {whole_number(category["id"]): _isthing(category) for category in data["categories"]}
    if None in kinds.values():
        raise ValueError(
            f"{ann_file}: not every category has 'isthing' (0 or 1); expected a COCO panoptic file. Use FORMAT: coco "
            "for an instances file."
        )
    order = sorted(range(len(category_ids)), key=lambda k: not kinds[category_ids[k]])  # stable: things, then stuff
    category_ids, names = [category_ids[k] for k in order], [names[k] for k in order]
    num_things = sum(map(bool, kinds.values()))
    if len(names) - num_things >= IGNORE_LABEL:
        raise ValueError(
            f"{ann_file} has {len(names) - num_things} stuff classes; at most {IGNORE_LABEL - 1} are supported"
        )

    files, listed = _annotated_images(data, ann_file, images, report)
    counts = np.array([len(segments) for segments in listed], dtype=np.int64)
    flat = [segment for segments in listed for segment in segments]
    owner = np.repeat(np.arange(len(listed)), counts)
    image_ids = list(files)
    ids = np.array([_usable_id(segment.get("id")) for segment in flat], dtype=np.int64)
    classes = positions([segment.get("category_id") for segment in flat], category_ids, report, "category")
    keep = np.ones(len(flat), dtype=bool)

    def drop(what: str, bad: np.ndarray) -> None:
        bad &= keep
        report.add("dropped", what, [_name(image_ids[owner[i]], flat[i].get("id")) for i in np.flatnonzero(bad)])
        keep[bad] = False

    drop(f"segments whose id is not an integer in 1..{MAX_ID}", ids == VOID)
    _, first = np.unique(owner * (MAX_ID + 1) + ids, return_index=True)
    drop("segments with the id of an earlier segment of their image", ~np.isin(np.arange(len(flat)), first))
    drop("segments of unknown categories", classes < 0)

    segment_ids = [segment.get("id") for segment in flat]
    crowd = flags([segment.get("iscrowd") for segment in flat], segment_ids, "iscrowd", ann_file, report)
    kept = np.bincount(owner[keep], minlength=len(listed))
    ends = np.cumsum(kept)
    spans = zip((ends - kept).tolist(), ends.tolist(), strict=True)
    rows = {image_id: slice(*span) for image_id, span in zip(files, spans, strict=True)}
    table = SegmentTable(files, rows, ids[keep], classes[keep], crowd[keep], category_ids, names, num_things)
    return table, [flat[i].get("bbox") for i in np.flatnonzero(keep)]


def _annotated_images(data: dict, ann_file: str, images: dict, report: DatasetReport) -> tuple[dict, list]:
    """Return the file names of segment maps by image id, in the order of `images`, and their "segments_info" lists."""
    table = rows_of({"annotations": data.get("annotations", [])}, "annotations", ann_file, ())
    image_ids = list(images)
    places = positions([row.get("image_id") for row in table], image_ids, report, "image")
    annotations: dict = {}
    repeated = []
    for row, place in zip(table, places.tolist(), strict=True):
        if not isinstance(row.get("segments_info"), list):
            raise ValueError(
                f"'annotations' of {ann_file}: {row!r:.120} has no list 'segments_info'; expected a COCO panoptic "
                "file. Use FORMAT: coco for an instances file."
            )
        if place >= 0 and annotations.setdefault(image_ids[place], row) is not row:
            repeated.append(image_ids[place])
    unknown = [table[i].get("image_id") for i in np.flatnonzero(places < 0)]
    report.add("dropped", "panoptic annotations of unknown images", unknown, "image ids")
    report.add("dropped", "repeated panoptic annotations of an image", repeated, "image ids")
    without = [image_id for image_id in images if image_id not in annotations]
    report.add("dropped", "images without a panoptic annotation", without, "image ids")
    files, listed = {}, []
    for image_id, image in images.items():
        if image_id not in annotations:
            continue
        row = annotations[image_id]
        name = row.get("file_name") or os.path.splitext(image["file_name"])[0] + ".png"
        if not isinstance(name, str) or "\0" in name:
            raise ValueError(
                f"{ann_file}: the annotation of image id {image_id} has file name {name!r}; expected a string"
            )
        files[image_id] = name
        listed.append(rows_of(row, "segments_info", ann_file, ()))
    return files, listed


def _usable_id(value) -> int:
    number = whole_number(value)
    return number if number is not None and VOID < number <= MAX_ID else VOID


def _isthing(category: dict) -> bool | None:
    kind = category.get("isthing")
    return None if kind is None or kind not in (0, 1, "0", "1") else flag(kind)


def _name(image_id, segment_id) -> str:
    return f"{image_id}/{segment_id}"


def _things_as_objects(
    data: dict, annotated: list[dict], ann_file: str, segments: SegmentTable, boxes: list, report: DatasetReport
) -> AnnotationTable:
    """Build the annotation table of the thing segments, as if read from an instances file."""
    categories = [category for category in data["categories"] if _isthing(category)]
    rows, numbers = [], {}
    for image_id, span in segments.rows.items():
        for i in range(span.start, span.stop):
            if segments.classes[i] < segments.num_things:
                name = _name(image_id, segments.ids[i])
                numbers[name] = i - span.start + 1
                row = {"id": name, "image_id": image_id, "bbox": boxes[i], "iscrowd": int(segments.crowd[i])}
                rows.append({**row, "category_id": segments.category_ids[segments.classes[i]]})
    content = {"images": annotated, "annotations": rows, "categories": categories}
    table = table_of(content, ann_file, report, ALL_CATEGORIES)
    table.segments = np.array([numbers[name] for name in table.annotation_ids], dtype=np.int64)
    return table


def _check_same_things(table: AnnotationTable, segments: SegmentTable, instances_file: str, ann_file: str) -> None:
    things = slice(segments.num_things)
    of_instances = list(zip(table.category_ids, table.class_names, strict=True))
    of_segments = list(zip(segments.category_ids[things], segments.names[things], strict=True))
    if of_instances != of_segments:
        pairs = enumerate(zip(of_instances, of_segments, strict=False))
        at = next((k for k, pair in pairs if pair[0] != pair[1]), None)
        first = "one has more" if at is None else f"{of_instances[at]} is in the place of {of_segments[at]}"
        raise ValueError(
            f"the categories of {instances_file} ({len(of_instances)}) are not the thing categories of {ann_file} "
            f"({len(of_segments)}) in the same order: {first}. Label k must be the same class in both."
        )
