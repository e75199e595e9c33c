"""Find and repair masks that do not fit their image or their box.

Shapes: B objects, Q polygons and P points of all objects together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.data.datasets.mask_table import MaskTable
from maskrcnn_benchmark.data.datasets.report import DatasetReport

# A polygon inside the image with a mean thickness above this many pixels is known to cover a pixel. Thinner ones are
# rasterised to find out.
THICK = 2.0

# Objects that are checked at a time.
PART = 16_384


def fit_masks(
    table: MaskTable, boxes: np.ndarray, sizes: np.ndarray, wanted: np.ndarray, ids: Sequence, report: DatasetReport
) -> MaskTable:
    """Replace missing and invalid masks by the outline of their box.

    Dropped and counted: polygons that are really run lengths, and polygons farther outside the image than its size.
    Repaired and counted: masks without a pixel in the image, and masks that do not touch their box.

    Args:
        table: masks of B objects.
        boxes: (B, 4) float32 inclusive corners, clipped to the image.
        sizes: (B, 2) int64 width, height of the objects' images.
        wanted: (B,) bool; other objects (crowd) are not counted.
        ids: B annotation ids, for the report.
        report: receives the findings.

    Returns:
        The repaired table.
    """
    owners = np.repeat(np.arange(len(table)), np.diff(table.offsets))
    runs, far = _by_parts(_run_lengths, table, sizes), _by_parts(_far_outside, table, sizes)

    report.add("dropped", "run lengths written as a polygon", [ids[i] for i in owners[runs]])
    what = "polygons farther outside the image than it is large (run lengths, or of another image)"
    report.add("dropped", what, [ids[i] for i in owners[far & ~runs]])
    bare = (np.diff(table.offsets) == 0) & (np.diff(table.run_offsets) == 0)  # already counted by MaskColumns
    table = table.select_polygons(~(runs | far))
    lost = ~bare & (np.diff(table.offsets) == 0) & (np.diff(table.run_offsets) == 0)
    table = table.with_boxes(boxes, bare | lost)
    empty = ~_by_parts(_has_pixels, table, sizes)
    apart = ~empty & _by_parts(_apart, table, boxes)
    for what, where in (
        ("objects left without a polygon, with their box as mask", lost),
        ("masks without a pixel in the image, replaced by their box", empty),
        ("masks that do not touch their box, replaced by their box", apart),
    ):
        report.add("repaired", what, [ids[i] for i in np.flatnonzero(where & wanted)])
    return table.with_boxes(boxes, empty | apart)


def _by_parts(check, table: MaskTable, of_objects: np.ndarray) -> np.ndarray:
    """Run a check on PART objects at a time and join the results: it makes several copies of their points."""
    parts = range(0, len(table), PART)
    found = [check(table.part(a, min(a + PART, len(table))), of_objects[a : a + PART]) for a in parts]
    return np.concatenate([np.zeros(0, dtype=bool), *found])


def _of_polygons(table: MaskTable, of_objects: np.ndarray) -> np.ndarray:
    return np.repeat(of_objects, np.diff(table.offsets), axis=0)


def _run_lengths(table: MaskTable, sizes: np.ndarray) -> np.ndarray:
    """Return (Q,) bool, true for polygons that are run lengths: non-negative integers that sum to the image's area.

    Args:
        table: masks.
        sizes: (B, 2) of the objects' images.
    """
    sizes = _of_polygons(table, sizes)
    numbers = table.points.astype(np.float64)
    sums = _reduce(np.add, numbers.sum(axis=1), table.point_offsets)
    suspicious = sums == sizes.prod(axis=1)
    if suspicious.any():
        whole = ((numbers >= 0) & (numbers == np.floor(numbers))).all(axis=1)
        suspicious &= _reduce(np.logical_and, whole, table.point_offsets)
    return suspicious


def _far_outside(table: MaskTable, sizes: np.ndarray) -> np.ndarray:
    """Return (Q,) bool, true for polygons with a point farther outside the image than the image's size."""
    sizes = _of_polygons(table, sizes)
    low = _reduce(np.minimum, table.points, table.point_offsets)
    high = _reduce(np.maximum, table.points, table.point_offsets)
    return ((low < -sizes) | (high > 2 * sizes)).any(axis=1)


def _has_pixels(table: MaskTable, sizes: np.ndarray) -> np.ndarray:
    """Return (B,) bool, true for masks with a pixel in their image; `sizes` is (B, 2) width, height."""
    owners = np.repeat(np.arange(len(table)), np.diff(table.offsets))
    certain = np.zeros(len(table), dtype=bool)
    if len(owners):
        low = _reduce(np.minimum, table.points, table.point_offsets)
        high = _reduce(np.maximum, table.points, table.point_offsets)
        inside = (low >= 0).all(axis=1) & (high <= sizes[owners]).all(axis=1)
        thickness = _areas(table) / np.maximum((high - low).max(axis=1), 1)
        certain[owners[inside & (thickness > THICK)]] = True
    # every second run is a run of ones; an RLE mask of the image's size has a pixel if one of them is not empty
    of_runs = (table.run_sizes > 0).all(axis=1)
    fits = of_runs & (table.run_sizes == sizes[:, ::-1]).all(axis=1)
    odd = (np.arange(len(table.runs)) - np.repeat(table.run_offsets[:-1], np.diff(table.run_offsets))) % 2 == 1
    ones = np.where(odd, table.runs, 0).astype(np.int64)
    certain |= fits & (_reduce(np.add, ones, table.run_offsets) > 0)
    for i in np.flatnonzero(~certain & ~fits):
        certain[i] = bool(table.masks(i, i + 1, tuple(sizes[i].tolist())).get_mask_tensor().any())
    return certain


def _areas(table: MaskTable) -> np.ndarray:
    """Return (Q,) the polygons' areas; self-intersecting polygons give less than their area."""
    points, offsets = table.points.astype(np.float64), table.point_offsets
    following = np.arange(1, len(points) + 1)
    following[offsets[1:] - 1] = offsets[:-1]
    x, y = points.T
    return np.abs(_reduce(np.add, x * y[following] - x[following] * y, offsets)) / 2


def _apart(table: MaskTable, boxes: np.ndarray) -> np.ndarray:
    """Return (B,) bool, true for objects with all polygons completely outside their box. RLE masks are not checked."""
    found = np.diff(table.offsets) > 0
    apart = np.zeros(len(table), dtype=bool)
    starts = table.point_offsets[table.offsets]
    low = _reduce(np.minimum, table.points, starts)[found]
    high = _reduce(np.maximum, table.points, starts)[found]
    corner, opposite = boxes[found, :2], boxes[found, 2:] + 1
    apart[found] = ((low > opposite) | (high < corner)).any(axis=1)
    return apart


def _reduce(operation: np.ufunc, values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Reduce values[offsets[i]:offsets[i + 1]] for each i; an empty range gives zeros."""
    out = np.zeros((len(offsets) - 1, *values.shape[1:]), dtype=values.dtype)
    there = offsets[1:] > offsets[:-1]
    if there.any():
        out[there] = operation.reduceat(values, offsets[:-1][there], axis=0)
    return out
