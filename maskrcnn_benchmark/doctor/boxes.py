"""Findings about boxes that contradict each other, or their polygons.

Shapes: B boxes of all images together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from maskrcnn_benchmark.doctor.findings import Finding
from maskrcnn_benchmark.doctor.pairs import pairs_in_groups
from maskrcnn_benchmark.doctor.splits import Split

# Two boxes of a class with at least this IoU are probably one object.
SAME_IOU = 0.9
# A box is inside another if at least this share of its area is.
INSIDE = 0.95
# Polygons and box disagree below this IoU of the box and the box around the polygons, unless all sides agree to within
# ROUNDING pixels.
POLYGON_IOU = 0.8
ROUNDING = 2.0


def box_findings(split: Split) -> Iterator[Finding]:
    """Yield boxes of one class that are nearly equal or within another, and polygons that disagree with their box."""
    if not len(split.table.boxes):
        return
    yield from _pairs(split)
    yield from _polygons(split)


def _pairs(split: Split) -> Iterator[Finding]:
    table = split.table
    boxes = table.boxes.astype(np.float64)
    areas = split.sides.prod(axis=1)
    ids = table.annotation_ids.__getitem__
    same, nested = [], []
    for a, b in pairs_in_groups(table.image_index * (len(table.class_names) + 1) + table.labels):
        common = _common(boxes[a], boxes[b])
        iou = common / (areas[a] + areas[b] - common)
        equal = (boxes[a] == boxes[b]).all(axis=1)  # reported by training's own checks
        near = (iou >= SAME_IOU) & ~equal
        inside = (common >= INSIDE * np.minimum(areas[a], areas[b])) & ~near & ~equal
        same.append((a[near], b[near], iou[near]))
        nested.append((a[inside], b[inside], iou[inside]))
    for kind, check, severity, title, remedy in (
        (
            same,
            "nearly-same-boxes",
            "warning",
            f"boxes that are nearly the same as another of their class (IoU of {SAME_IOU:g} or more)",
            "An object that is annotated twice counts twice. Delete one of both.",
        ),
        (
            nested,
            "nested-boxes",
            "note",
            "boxes within another box of their class",
            "Check whether the outer box is a group of objects (mark it iscrowd: 1), or the inner one a part.",
        ),
    ):
        first, second, iou = (np.concatenate([each[k] for each in kind]) for k in range(3)) if kind else ([], [], [])
        if not len(first):
            continue
        order = np.argsort(-iou, kind="stable")
        other = dict(zip(second[order].tolist(), first[order].tolist(), strict=True))
        rows = list(other)
        examples = split.examples(
            rows,
            lambda row, other=other: f"{table.class_names[table.labels[row] - 1]}, with annotation {ids(other[row])}",
            lambda row, other=other: [other[row]],
        )
        yield Finding(check, severity, title, (split.name,), len(rows), examples, remedy)


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the common area of boxes (N, 4) with inclusive corners, pair by pair."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    return np.clip(high - low + 1, 0, None).prod(axis=1)


def _polygons(split: Split) -> Iterator[Finding]:
    table, masks = split.table, split.table.masks
    if masks is None:
        return
    rows = np.flatnonzero(np.diff(masks.offsets) > 0)
    starts = masks.point_offsets[masks.offsets]
    rows = rows[starts[rows] < starts[rows + 1]]
    if not len(rows):
        return
    # rows without points start where the next row does, so that reduceat's ranges are exactly those of `rows`
    low = np.minimum.reduceat(masks.points, starts[rows], axis=0)
    high = np.maximum.reduceat(masks.points, starts[rows], axis=0)
    boxes = table.boxes[rows].astype(np.float64)
    # polygons are in continuous coordinates: a pixel reaches from x to x + 1
    around = np.concatenate([low, high - 1], axis=1).astype(np.float64)
    sizes = split.dataset.image_sizes[table.image_index[rows]]
    around = np.clip(around, 0, np.concatenate([sizes, sizes], axis=1) - 1)
    common = _common(boxes, around)
    sides = np.clip(around[:, 2:] - around[:, :2] + 1, 0, None)
    iou = common / (split.sides[rows].prod(axis=1) + sides.prod(axis=1) - common)
    differs = (iou < POLYGON_IOU) & (np.abs(around - boxes) > ROUNDING).any(axis=1)
    order = np.argsort(iou[differs], kind="stable")
    chosen, found = rows[differs][order], around[differs][order]
    if not len(chosen):
        return
    names, ratio = table.class_names, iou[differs][order]
    place = {row: i for i, row in enumerate(chosen.tolist())}
    examples = split.examples(
        chosen, lambda row: f"{names[table.labels[row] - 1]}, IoU {ratio[place[row]]:.2f} of box and polygons"
    )
    examples = [
        replace(each, boxes=(*each.boxes, tuple(outline)))
        for each, outline in zip(examples, found.tolist(), strict=False)
    ]
    remedy = "Compute the box from the polygons, or correct what was moved: box and mask teach different places."
    title = f"polygons that disagree with their box (IoU below {POLYGON_IOU:g})"
    yield Finding("polygon-box", "warning", title, (split.name,), len(chosen), examples, remedy)
