"""Collect the "segmentation" entries of all annotations in flat arrays, a batch at a time.

Shapes: A annotations as the file has them, of which B become objects; Q polygons, P points and R runs.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.data.datasets.mask_table import MaskTable, as_float32, offsets_of
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.segmentation_values import as_rle, is_flat, polygons_in, read_runs
from maskrcnn_benchmark.structures.polygons import MIN_POINTS
from maskrcnn_benchmark.utils.kept_memory import return_freed_memory

# Largest coordinate in pixels; above it float32 is too coarse for rasterising.
FARTHEST = 1e6

# Points per block of memory (64 MB), and polygons that are reordered at a time.
BLOCK, PART = 1 << 23, 50_000


class MaskColumns:
    """Polygons and run lengths of A annotations, and what was repaired or dropped in them."""

    def __init__(self):
        self._points = _PointStore()
        self._lengths: list[int] = []  # points of each polygon
        self._polygons: list[int] = []  # polygons of each annotation
        self._runs = [np.zeros(0, np.uint32)]
        self._run_lengths: dict[int, int] = {}
        self._run_sizes: dict[int, tuple[int, int]] = {}
        self._given = bytearray()  # whether each annotation has a non-empty segmentation entry
        self._broken_polygons: dict[int, int] = {}
        self._broken_runs: set[int] = set()
        self._flat: set[int] = set()
        self._nested: set[int] = set()

    def __len__(self) -> int:
        return len(self._polygons)

    def extend(self, segmentations: Sequence) -> None:
        """Append one entry per annotation: a list of polygons, an RLE object, or anything else.

        Polygons that are broken are left out. A flat list of coordinates is read as one polygon.
        """
        before = len(self), len(self._lengths)
        coordinates = array("d")
        if not self._extend_regular(coordinates, segmentations):
            del self._polygons[before[0] :], self._lengths[before[1] :], coordinates[:]
            for segmentation in segmentations:
                self._append(coordinates, segmentation)
        self._given += bytes(map(bool, segmentations))
        self._points.extend(as_float32(np.frombuffer(coordinates, dtype=np.float64)).reshape(-1, 2))

    def _extend_regular(self, coordinates: array, segmentations: Sequence) -> bool:
        """Append the entries if all their polygons are valid; otherwise return False, and the caller must undo it."""
        for segmentation in segmentations:
            if not isinstance(segmentation, list):
                self._append(coordinates, segmentation)
                continue
            for polygon in segmentation:
                if not isinstance(polygon, list) or len(polygon) < 2 * MIN_POINTS or len(polygon) % 2:
                    return False
                try:
                    coordinates.fromlist(polygon)
                except (TypeError, OverflowError):
                    return False
                self._lengths.append(len(polygon) // 2)
            self._polygons.append(len(segmentation))
        return bool((np.abs(np.frombuffer(coordinates, dtype=np.float64)) < FARTHEST).all())  # NaN is refused

    def _append(self, coordinates: array, segmentation) -> None:
        row, count = len(self), 0
        rle = as_rle(segmentation)
        if rle is not None or isinstance(segmentation, dict):
            try:
                runs, size = read_runs(rle or {})
            except ValueError:
                self._broken_runs.add(row)
            else:
                if row not in self._run_lengths:  # a batch that is read again
                    self._runs.append(runs)
                self._run_lengths[row], self._run_sizes[row] = len(runs), size
        elif isinstance(segmentation, list):
            if is_flat(segmentation):
                segmentation = [segmentation]
                self._flat.add(row)
            count, broken, regular = _append_all(coordinates, self._lengths, segmentation)
            if broken:
                self._broken_polygons[row] = broken
            if not regular:
                self._nested.add(row)
        elif segmentation is not None:
            self._broken_polygons[row] = 1
        self._polygons.append(count)

    def table(self, rows: np.ndarray, wanted: np.ndarray, ids: Sequence, report: DatasetReport) -> MaskTable | None:
        """Return the masks of `rows`, in this order; None if no wanted annotation has one.

        Repaired and dropped entries are counted. An object without a usable segmentation has neither polygons nor runs,
        until `mask_checks.fit_masks` gives it the outline of its box. The columns are empty afterwards.

        Args:
            rows: (B,) int64, index of the annotation of each object.
            wanted: (B,) bool; other objects (crowd) get no mask.
            ids: B annotation ids, for the report.
            report: receives the findings.
        """
        if not np.frombuffer(self._given, dtype=np.uint8)[rows[wanted]].any():
            return None
        return_freed_memory()  # parsing leaves gaps, and the masks of all objects are needed twice now
        points, point_offsets, polygons = self._ordered_polygons(rows, wanted)
        run_counts, run_sizes = np.zeros(len(self), np.int64), np.zeros((len(self), 2), np.int64)
        for row, count in self._run_lengths.items():
            run_counts[row], run_sizes[row] = count, self._run_sizes[row]
        run_starts = offsets_of(run_counts)[rows]
        run_counts = np.where(wanted, run_counts[rows], 0)
        table = MaskTable(
            points=points,
            point_offsets=point_offsets,
            offsets=offsets_of(polygons),
            runs=np.concatenate(self._runs)[ranges(run_starts, run_counts)],
            run_offsets=offsets_of(run_counts),
            run_sizes=np.where(wanted[:, None], run_sizes[rows], 0),
        )
        self._report(rows, wanted, (polygons == 0) & (run_counts == 0), ids, report)
        return table

    def _ordered_polygons(self, rows: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return points and point offsets as MaskTable has them, and the number of polygons of each object."""
        counts = np.array(self._polygons, dtype=np.int64)
        starts = offsets_of(counts)[rows]
        counts = np.where(wanted, counts[rows], 0)
        chosen = ranges(starts, counts)
        lengths = np.array(self._lengths, dtype=np.int64)
        offsets = offsets_of(lengths[chosen])
        places = np.full(len(lengths), -1, dtype=np.int64)  # where the points of a polygon go
        places[chosen] = offsets[:-1]
        return self._points.ordered(lengths, places, int(offsets[-1])), offsets, counts

    def _report(self, rows, wanted, empty, ids, report: DatasetReport) -> None:
        def ids_of(odd) -> list:
            here = np.flatnonzero(wanted & np.isin(rows, list(odd))) if odd else ()
            return [ids[i] for i in here]

        broken = []
        for i in np.flatnonzero(wanted & np.isin(rows, list(self._broken_polygons))) if self._broken_polygons else ():
            broken += [ids[i]] * self._broken_polygons[int(rows[i])]
        report.add("dropped", "broken polygons (odd length, fewer than 3 points, or not finite numbers)", broken)
        report.add("dropped", "broken RLE masks", ids_of(self._broken_runs))
        flat, nested = ids_of(self._flat), ids_of(self._nested)
        report.add("repaired", "segmentations in one flat list, read as one polygon", flat)
        report.add("repaired", "polygons of points, in further lists, or with numbers as text", nested)
        lacking = [ids[i] for i in np.flatnonzero(empty & wanted)]
        report.add("repaired", "objects without a usable segmentation, with their box as mask", lacking)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenate the ranges start, start + 1, ..., start + length - 1 of all pairs of start and length."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


class _PointStore:
    """Points in blocks, each large enough that its memory returns to the system when it is deleted."""

    def __init__(self):
        self._blocks: list[np.ndarray] = []
        self._filled = 0  # points of the last block

    def extend(self, points: np.ndarray) -> None:
        """Append (P, 2) float32 of whole polygons."""
        if not self._blocks or self._filled + len(points) > len(self._blocks[-1]):
            self._close()
            self._blocks.append(np.empty((max(BLOCK, len(points)), 2), dtype=np.float32))
        self._blocks[-1][self._filled : self._filled + len(points)] = points
        self._filled += len(points)

    def _close(self) -> None:
        if self._blocks:
            self._blocks[-1] = self._blocks[-1][: self._filled]
        self._filled = 0

    def ordered(self, lengths: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
        """Return the points in a new order, (count, 2) float32, and empty the store.

        Args:
            lengths, places: (Q,) points of each polygon, and where the first goes; -1 leaves the polygon out.
        """
        self._close()
        ordered = np.empty((count, 2), dtype=np.float32)
        ends = np.cumsum(lengths)
        begin = 0
        self._blocks.reverse()
        while self._blocks:
            block = self._blocks.pop()
            offset = int(ends[begin - 1]) if begin else 0
            end = int(np.searchsorted(ends, offset + len(block), side="right"))
            for first in range(begin, end, PART):  # all indices at once take more memory than the points
                part = slice(first, min(first + PART, end))
                kept = places[part] >= 0
                sources = ranges((ends[part] - lengths[part])[kept] - offset, lengths[part][kept])
                ordered[ranges(places[part][kept], lengths[part][kept])] = block[sources]
            begin = end
        return ordered


def _append_all(coordinates: array, lengths: list, segmentation: list) -> tuple[int, int, bool]:
    """Append the polygons of an object.

    Returns:
        Number of polygons appended, number of broken ones, and whether all were flat lists of numbers. Usable polygons
        in any other layout are flattened.
    """
    before, known = len(coordinates), len(lengths)
    broken = 0
    for polygon in segmentation:
        if _append(coordinates, polygon):
            lengths.append(len(polygon) // 2)
        else:
            broken += 1
    if not broken:
        return len(lengths) - known, 0, True
    found = polygons_in(segmentation)
    if len(found) <= len(lengths) - known:
        return len(lengths) - known, broken, True
    del coordinates[before:], lengths[known:]
    usable = [polygon for polygon in found if _append(coordinates, polygon)]
    lengths += [len(polygon) // 2 for polygon in usable]
    of_points = not any(polygons_in(part) for part in segmentation)
    broken = 0 if of_points else sum(not polygons_in(part) for part in segmentation)
    return len(usable), broken + len(found) - len(usable), False


def _append(coordinates: array, polygon) -> bool:
    """Append a polygon's numbers and return True, or return False if it is not a valid flat polygon."""
    if not isinstance(polygon, list) or len(polygon) < 2 * MIN_POINTS or len(polygon) % 2:
        return False
    try:
        coordinates.fromlist(polygon)  # does not change the array if it fails
    except (TypeError, OverflowError):
        return False
    added = np.frombuffer(coordinates[-len(polygon) :], dtype=np.float64)
    if not (np.abs(added) < FARTHEST).all():  # `not <` also rejects NaN
        del coordinates[-len(polygon) :]
        return False
    return True
