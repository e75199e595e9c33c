"""Store the masks of a whole dataset in a few flat arrays, which worker processes share with their parent.

Shapes: B objects, Q polygons, P points and R runs of all objects together, H x W pixels of an image.
"""

from __future__ import annotations

import numpy as np
import torch

from maskrcnn_benchmark.structures.binary_masks import BinaryMaskList
from maskrcnn_benchmark.structures.polygons import PolygonList
from maskrcnn_benchmark.structures.rle import compress_counts, decode_counts, encode_counts, resize_nearest
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask


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

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arguments of the constructor by name, for a file."""
        return dict(self.__dict__)

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> MaskTable:
        """Make a table from the result of `to_arrays`."""
        return cls(**arrays)

    def select(self, keep: np.ndarray) -> MaskTable:
        """Return the objects for which `keep`, (B,) bool, is true."""
        if keep.all():
            return self
        polygons, offsets = _parts(self.offsets, keep)
        _, run_offsets = _parts(self.run_offsets, keep)
        return MaskTable(
            _joined(self.points, self.point_offsets[self.offsets], keep),
            offsets_of(np.diff(self.point_offsets)[polygons]),
            offsets,
            _joined(self.runs, self.run_offsets, keep),
            run_offsets,
            self.run_sizes[keep],
        )

    def part(self, first: int, last: int) -> MaskTable:
        """Return the objects first to last - 1, as views of these arrays."""
        polygons = slice(self.offsets[first], self.offsets[last])
        points = slice(self.point_offsets[polygons.start], self.point_offsets[polygons.stop])
        runs = slice(self.run_offsets[first], self.run_offsets[last])
        return MaskTable(
            self.points[points],
            self.point_offsets[polygons.start : polygons.stop + 1] - points.start,
            self.offsets[first : last + 1] - polygons.start,
            self.runs[runs],
            self.run_offsets[first : last + 1] - runs.start,
            self.run_sizes[first:last],
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
        offsets = offsets_of([len(runs) for runs in parts])
        runs = np.concatenate([np.zeros(0, np.uint32), *parts])
        return MaskTable(points, self.point_offsets, self.offsets, runs, offsets, run_sizes)

    def select_polygons(self, keep: np.ndarray) -> MaskTable:
        """Return the same objects with only the polygons for which `keep`, (Q,) bool, is true."""
        if keep.all():
            return self
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
        left = self.select_polygons(polygons)
        bare = MaskTable(
            left.points,
            left.point_offsets,
            left.offsets,
            self.runs[runs],
            offsets_of(np.where(where, 0, run_offsets)),
            np.where(where[:, None], 0, self.run_sizes),
        )
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
        points = self.points[point_offsets[0] : point_offsets[-1]].copy()  # tensors of a mapped file would be read-only
        return PolygonList.from_arrays(points, point_offsets - point_offsets[0], offsets - offsets[0], size)


def _joined(values: np.ndarray, offsets: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Concatenate values[offsets[i]:offsets[i + 1]] of all i for which `keep` is true.

    Indexing with a boolean mask of all values would make indices that take more memory than the values.
    """
    edges = np.flatnonzero(np.diff(keep.astype(np.int8), prepend=0, append=0))
    bounds = offsets[edges].reshape(-1, 2).tolist()
    return np.concatenate([values[:0], *(values[first:last] for first, last in bounds)])


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


def as_float32(numbers: np.ndarray) -> np.ndarray:
    """Convert float64 coordinates to float32 numbers that rasterise to the same mask.

    COCO's rasteriser puts a coordinate x into cell trunc(5 x + 0.5) of a grid. Where rounding to float32 would change
    the cell, the neighbouring float32 number is used.
    """
    near = numbers.astype(np.float32)
    off = np.trunc(5 * near.astype(np.float64) + 0.5) - np.trunc(5 * numbers + 0.5)
    return np.where(off == 0, near, np.nextafter(near, np.where(off > 0, -np.inf, np.inf).astype(np.float32)))


def offsets_of(counts) -> np.ndarray:
    """Return (N + 1,) int64: where each of N owners begins among all of their parts, and the number of parts."""
    return np.concatenate(([0], np.cumsum(np.asarray(counts, dtype=np.int64))))


def _with_boxes(table: MaskTable, boxes: np.ndarray, empty: np.ndarray) -> MaskTable:
    """Give the objects for which `empty`, (B,) bool, is true the outline of their box as polygon."""
    if not empty.any():
        return table
    x1, y1, x2, y2 = boxes[empty].T
    x2, y2 = x2 + 1, y2 + 1  # inclusive corners are pixel indices, polygon coordinates are pixel edges
    outlines = np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).reshape(-1, 4, 2).astype(np.float32)
    pieces, done = [], 0  # np.insert would take an index of 8 bytes per point
    for place, outline in zip(table.point_offsets[table.offsets[:-1][empty]].tolist(), outlines, strict=True):
        pieces += [table.points[done:place], outline]
        done = place
    counts = np.insert(np.diff(table.point_offsets), table.offsets[:-1][empty], 4)
    return MaskTable(
        np.concatenate([*pieces, table.points[done:]]),
        offsets_of(counts),
        offsets_of(np.diff(table.offsets) + empty),
        table.runs,
        table.run_offsets,
        table.run_sizes,
    )
