"""Store the masks of a whole dataset in a few flat arrays, which worker processes share with their parent.

Shapes: B objects, Q polygons, P points and R runs of all objects together, H x W pixels of an image.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import torch

from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.segmentation_values import as_rle, is_flat, polygons_in, read_runs
from maskrcnn_benchmark.structures.rle import compress_counts, decode_counts, encode_counts, resize_nearest
from maskrcnn_benchmark.structures.segmentation_mask import MIN_POINTS, BinaryMaskList, PolygonList, SegmentationMask

# Largest coordinate in pixels; above it float32 is too coarse for rasterising.
FARTHEST = 1e6


class MaskTable:
    """Polygons or run lengths of B objects; an object has one or the other.

    Args:
        points: (P, 2) float32 x, y in pixels of the image.
        point_offsets: (Q + 1,) int64, the first point of each polygon, and P.
        offsets: (B + 1,) int64, the first polygon of each object, and Q.
        runs: (R,) uint32 run lengths, column by column, starting with a run of zeros.
        run_offsets: (B + 1,) int64, the first run of each object, and R.
        run_sizes: (B, 2) int64 height and width of each RLE mask; 0 for polygons.
    """

    def __init__(self, points, point_offsets, offsets, runs, run_offsets, run_sizes):
        self.points, self.point_offsets, self.offsets = points, point_offsets, offsets
        self.runs, self.run_offsets, self.run_sizes = runs, run_offsets, run_sizes

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, keep: np.ndarray) -> MaskTable:
        """Return the objects for which `keep`, (B,) bool, is true."""
        polygons, offsets = _parts(self.offsets, keep)
        points, point_offsets = _parts(self.point_offsets, polygons)
        runs, run_offsets = _parts(self.run_offsets, keep)
        return MaskTable(
            self.points[points], point_offsets, offsets, self.runs[runs], run_offsets, self.run_sizes[keep]
        )

    def scale(self, factors: np.ndarray, sizes: np.ndarray) -> MaskTable:
        """Scale masks to a new image size.

        Args:
            factors: (B, 2) float64 in x and y, for polygons.
            sizes: (B, 2) width, height; RLE masks are resampled to this size by nearest neighbour.
        """
        of_polygon = np.repeat(factors, np.diff(self.offsets), axis=0)
        of_point = np.repeat(of_polygon, np.diff(self.point_offsets), axis=0)
        points = (self.points * of_point).astype(np.float32)
        parts, run_sizes = [], self.run_sizes.copy()
        for i in range(len(self)):
            runs = self.runs[self.run_offsets[i] : self.run_offsets[i + 1]]
            if len(runs) and (factors[i] != 1).any():
                mask = decode_counts(runs, *self.run_sizes[i].tolist())
                runs = encode_counts(resize_nearest(mask, sizes[i].tolist()))
                run_sizes[i] = sizes[i, ::-1]
            parts.append(runs)
        offsets = _offsets([len(runs) for runs in parts])
        runs = np.concatenate([np.zeros(0, np.uint32), *parts])
        return MaskTable(points, self.point_offsets, self.offsets, runs, offsets, run_sizes)

    def select_polygons(self, keep: np.ndarray) -> MaskTable:
        """Return the same objects with only the polygons for which `keep`, (Q,) bool, is true."""
        points, point_offsets = _parts(self.point_offsets, keep)
        offsets = np.concatenate(([0], np.cumsum(keep)))[self.offsets]
        return MaskTable(self.points[points], point_offsets, offsets, self.runs, self.run_offsets, self.run_sizes)

    def with_boxes(self, boxes: np.ndarray, where: np.ndarray) -> MaskTable:
        """Replace masks by the outline of their box.

        Args:
            boxes: (B, 4) inclusive corners.
            where: (B,) bool, masks to replace.
        """
        if not where.any():
            return self
        polygons = np.repeat(~where, np.diff(self.offsets))
        runs, run_offsets = np.repeat(~where, np.diff(self.run_offsets)), np.diff(self.run_offsets)
        bare = self.select_polygons(polygons)
        bare.runs, bare.run_offsets = self.runs[runs], _offsets(np.where(where, 0, run_offsets))
        bare.run_sizes = np.where(where[:, None], 0, self.run_sizes)
        return _with_boxes(bare, boxes, where)

    def segmentation(self, index: int) -> list | dict:
        """Return an object's COCO "segmentation": flat polygons, or compressed RLE of the stored size."""
        if self.run_offsets[index] < self.run_offsets[index + 1]:
            runs = self.runs[self.run_offsets[index] : self.run_offsets[index + 1]]
            return compress_counts(runs, *self.run_sizes[index].tolist())
        bounds = self.point_offsets[self.offsets[index] : self.offsets[index + 1] + 1]
        return [self.points[a:b].reshape(-1).tolist() for a, b in zip(bounds[:-1], bounds[1:], strict=True)]

    def of_other_size(self, sizes: np.ndarray) -> np.ndarray:
        """Return (B,) bool, true for RLE masks whose size differs from `sizes`, (B, 2) width, height."""
        return (self.run_sizes > 0).all(axis=1) & (self.run_sizes != sizes[:, ::-1]).any(axis=1)

    def masks(self, first: int, last: int, size: tuple[int, int]) -> SegmentationMask:
        """Return the masks of objects first to last - 1, all in one image.

        Args:
            first, last: range of objects.
            size: (width, height) of the image.

        Returns:
            Polygons, or binary masks if any of the objects is stored as RLE. RLE masks of another size are cropped or
            zero-padded at the right and bottom.
        """
        if self.run_offsets[first] == self.run_offsets[last]:
            return SegmentationMask(self._polygons(first, last, size), size, mode="poly")
        width, height = size
        pixels = np.zeros((last - first, height, width), dtype=np.uint8)
        for canvas, i in zip(pixels, range(first, last), strict=True):
            if self.run_offsets[i] == self.run_offsets[i + 1]:
                canvas[:] = self._polygons(i, i + 1, size).convert_to_binarymask().masks[0].numpy()
            else:
                runs = self.runs[self.run_offsets[i] : self.run_offsets[i + 1]]
                mask = decode_counts(runs, *self.run_sizes[i].tolist())[:height, :width]
                canvas[: mask.shape[0], : mask.shape[1]] = mask
        return SegmentationMask(BinaryMaskList(torch.from_numpy(pixels), size, copy=False), size, mode="mask")

    def _polygons(self, first: int, last: int, size) -> PolygonList:
        offsets = self.offsets[first : last + 1]
        point_offsets = self.point_offsets[offsets[0] : offsets[-1] + 1]
        points = self.points[point_offsets[0] : point_offsets[-1]]
        return PolygonList.from_arrays(points, point_offsets - point_offsets[0], offsets - offsets[0], size)


def _parts(offsets: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select owners and their parts, where owner i has the parts offsets[i]:offsets[i + 1].

    Args:
        offsets: (owners + 1,).
        keep: (owners,) bool.

    Returns:
        (parts,) bool of kept parts, and the new offsets of the kept owners.
    """
    lengths = np.diff(offsets)
    return np.repeat(keep, lengths), np.concatenate(([0], np.cumsum(lengths[keep])))


def read_masks(segmentations: Sequence, wanted: np.ndarray, ids: Sequence, report: DatasetReport) -> MaskTable | None:
    """Read COCO's "segmentation" entries.

    Broken polygons are dropped and counted. A flat list of coordinates is read as one polygon and counted.

    Args:
        segmentations: B entries: list of polygons, RLE object, or anything else.
        wanted: (B,) bool; other objects (crowd) are not read.
        ids: B annotation ids, for the report.
        report: receives the findings.

    Returns:
        A MaskTable, or None if no wanted object has a segmentation. An object without a usable segmentation has neither
        polygons nor runs; `mask_checks.fit_masks` later gives it the outline of its box.
    """
    if not any(segmentations[i] for i in np.flatnonzero(wanted)):
        return None
    coordinates = array("d")
    runs: list[np.ndarray] = []
    # points per polygon; polygons and runs per object
    lengths, polygons, run_counts = [], np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    run_sizes = np.zeros((len(ids), 2), dtype=np.int64)
    broken_polygons, broken_runs, flat, nested = [], [], [], []
    for i in np.flatnonzero(wanted):
        segmentation = segmentations[i]
        rle = as_rle(segmentation)
        if rle is not None or isinstance(segmentation, dict):
            try:
                counts, size = read_runs(rle or {})
            except ValueError:
                broken_runs.append(ids[i])
                continue
            runs.append(counts)
            run_counts[i], run_sizes[i] = len(counts), size
        elif isinstance(segmentation, list):
            if is_flat(segmentation):
                segmentation = [segmentation]
                flat.append(ids[i])
            counted, broken, regular = _append_all(coordinates, lengths, segmentation)
            polygons[i] = counted
            broken_polygons += [ids[i]] * broken
            if not regular:
                nested.append(ids[i])
        elif segmentation is not None:
            broken_polygons.append(ids[i])

    table = MaskTable(
        points=as_float32(np.frombuffer(coordinates, dtype=np.float64)).reshape(-1, 2),
        point_offsets=_offsets(lengths),
        offsets=_offsets(polygons),
        runs=np.concatenate([np.zeros(0, np.uint32), *runs]),
        run_offsets=_offsets(run_counts),
        run_sizes=run_sizes,
    )
    empty = (polygons == 0) & (run_counts == 0)
    what = "broken polygons (odd length, fewer than 3 points, or not finite numbers)"
    report.add("dropped", what, broken_polygons)
    report.add("dropped", "broken RLE masks", broken_runs)
    report.add("repaired", "segmentations in one flat list, read as one polygon", flat)
    report.add("repaired", "polygons of points, in further lists, or with numbers as text", nested)
    lacking = [ids[i] for i in np.flatnonzero(empty & wanted)]
    report.add("repaired", "objects without a usable segmentation, with their box as mask", lacking)
    return table


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


def as_float32(numbers: np.ndarray) -> np.ndarray:
    """Convert float64 coordinates to float32 numbers that rasterise to the same mask.

    COCO's rasteriser puts a coordinate x into cell floor(5 x + 0.5) of a grid. Where rounding to float32 would change
    the cell, the neighbouring float32 number is used.
    """
    near = numbers.astype(np.float32)
    off = np.trunc(5 * near.astype(np.float64) + 0.5) - np.trunc(5 * numbers + 0.5)
    return np.where(off == 0, near, np.nextafter(near, np.where(off > 0, -np.inf, np.inf).astype(np.float32)))


def _offsets(counts) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(np.asarray(counts, dtype=np.int64))))


def _with_boxes(table: MaskTable, boxes: np.ndarray, empty: np.ndarray) -> MaskTable:
    """Give the objects for which `empty`, (B,) bool, is true the outline of their box as polygon."""
    if not empty.any():
        return table
    x1, y1, x2, y2 = boxes[empty].T
    x2, y2 = x2 + 1, y2 + 1  # inclusive corners are pixel indices, polygon coordinates are pixel edges
    outlines = np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).reshape(-1, 4, 2).astype(np.float32)
    places = np.repeat(table.point_offsets[table.offsets[:-1][empty]], 4)
    counts = np.insert(np.diff(table.point_offsets), table.offsets[:-1][empty], 4)
    return MaskTable(
        np.insert(table.points, places, outlines.reshape(-1, 2), axis=0),
        _offsets(counts),
        _offsets(np.diff(table.offsets) + empty),
        table.runs,
        table.run_offsets,
        table.run_sizes,
    )
