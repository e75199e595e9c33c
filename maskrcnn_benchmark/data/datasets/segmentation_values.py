"""Parse COCO "segmentation" entries in the layouts that exporters write: nested polygons, run lengths as text."""

from __future__ import annotations

import ast

import numpy as np

from maskrcnn_benchmark.data.datasets.coco_values import real_number
from maskrcnn_benchmark.structures.polygons import MIN_POINTS
from maskrcnn_benchmark.structures.rle import decode_counts, parse_counts

# Maximum nesting of lists; deeper entries are broken.
DEEPEST = 4


def is_flat(segmentation: list) -> bool:
    """Return whether a list is one polygon of numbers rather than a list of polygons."""
    return bool(segmentation) and not any(isinstance(part, (list, dict)) for part in segmentation)


def polygons_in(node, depth: int = 0) -> list[list]:
    """Return the flat polygons x, y, x, y, ... of lists nested in any way; [] if there is none.

    Points may be pairs [x, y] or objects {"x": x, "y": y}, and numbers may be text.
    """
    if not isinstance(node, list) or not node or depth > DEEPEST:
        return []
    points = [_point(part) for part in node]
    if len(points) >= MIN_POINTS and all(point is not None for point in points):
        return [[number for point in points for number in point]]
    if is_flat(node):
        numbers = [real_number(part) for part in node]
        usable = len(numbers) >= 2 * MIN_POINTS and len(numbers) % 2 == 0 and np.isfinite(numbers).all()
        return [numbers] if usable else []
    return [polygon for part in node for polygon in polygons_in(part, depth + 1)]


def _point(part) -> list[float] | None:
    if isinstance(part, dict):
        part = [part.get("x"), part.get("y")]
    if not isinstance(part, list) or len(part) != 2:
        return None
    point = [real_number(number) for number in part]
    return point if np.isfinite(point).all() else None


def as_rle(segmentation) -> dict | None:
    """Return the RLE object of an entry, either itself or the only element of its list; None for other entries."""
    if isinstance(segmentation, list) and len(segmentation) == 1:
        segmentation = segmentation[0]
    return segmentation if isinstance(segmentation, dict) and "counts" in segmentation else None


def read_runs(rle: dict) -> tuple[np.ndarray, tuple[int, int]]:
    """Parse an RLE object to run lengths (R,) uint32 and (height, width).

    Raises:
        ValueError: the counts are not run lengths of a mask of that size.
    """
    counts, size = rle.get("counts"), rle.get("size")
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"'):  # the repr of Python bytes
        try:
            counts = ast.literal_eval(counts)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"not run lengths of a mask: {error}") from error
    runs = parse_counts(counts, size)
    height, width = (int(side) for side in size)
    return runs, (height, width)


def bounds_of(segmentation) -> list[float] | None:
    """Return the box [x, y, width, height] of a segmentation, or None if it has no usable part."""
    rle = as_rle(segmentation)
    if rle is not None:
        try:
            mask = decode_counts(*_flat(read_runs(rle)))
        except ValueError:
            return None
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        x, y = int(columns[0]), int(rows[0])
        return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    found = polygons_in(segmentation)
    if not found:
        return None
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in found])
    (x, y), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return [x, y, right - x, bottom - y]


def _flat(read: tuple) -> tuple:
    runs, (height, width) = read
    return runs, height, width
