"""Masks of the objects of one image as polygons.

Shapes: N objects, Q polygons and P points of all of them together, H x W pixels of the image. All is on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from maskrcnn_benchmark.structures.binary_masks import BinaryMaskList, as_numbers, selected_indices
from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, TO_REMOVE, check_flip
from maskrcnn_benchmark.structures.rle import decode_counts, parse_counts

# A polygon with fewer points has no area.
MIN_POINTS = 3


class PolygonInstance:
    """The polygons of one object.

    Args:
        polygons: flat x, y lists or tensors; those with fewer than 3 points are dropped.
        size: (width, height) of the image.
    """

    def __init__(self, polygons, size):
        if isinstance(polygons, PolygonInstance):
            polygons = polygons.polygons
        flat = [torch.as_tensor(polygon, dtype=torch.float32) for polygon in polygons]
        self.polygons = [polygon for polygon in flat if len(polygon) >= 2 * MIN_POINTS]
        self.size = as_numbers(size)

    def _through(self, method: str, *args) -> PolygonInstance:
        # Without a valid polygon the list is empty.
        moved = getattr(PolygonList([self.polygons], self.size), method)(*args)
        return PolygonInstance(moved.polygons[0] if len(moved) else [], moved.size)

    def transpose(self, method: int, box_offset: float = TO_REMOVE) -> PolygonInstance:
        return self._through("transpose", method, box_offset)

    def crop(self, box) -> PolygonInstance:
        return self._through("crop", box)

    def resize(self, size, *args, **kwargs) -> PolygonInstance:
        return self._through("resize", size)

    def convert_to_binarymask(self) -> torch.Tensor:
        """Rasterize to (H, W) uint8."""
        return torch.from_numpy(_rasterize([polygon.numpy() for polygon in self.polygons], self.size))

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonInstance(num_polygons={len(self)}, image_width={self.size[0]}, image_height={self.size[1]})"


class PolygonList:
    """The polygons of N objects, stored in three arrays.

    Args:
        polygons: for each object a list of polygons, each a flat list or tensor x, y, x, y, ...; or a list of
            PolygonInstance; or a PolygonList. Polygons with fewer than 3 points are dropped, and so are objects without
            any polygon: N can be smaller than the length of the input.
        size: (width, height) of the image, in pixels; numbers or 0-dim tensors.

    Raises:
        ValueError: polygons has none of these forms.
    """

    def __init__(self, polygons, size):
        self.size = as_numbers(size)
        if isinstance(polygons, PolygonList):
            self._points = polygons._points
            self._point_offsets, self._offsets = polygons._point_offsets, polygons._offsets
            return
        if not isinstance(polygons, (list, tuple)):
            raise ValueError(f"PolygonList requires a list of objects, each a list of polygons, got {type(polygons)}")
        instances = [p.polygons if isinstance(p, PolygonInstance) else p for p in polygons]
        if not all(isinstance(instance, (list, tuple)) for instance in instances):
            raise ValueError("PolygonList requires a list of polygons for each object, but one has another type")
        usable = [
            [np.asarray(p, dtype=np.float32) for p in instance if len(p) >= 2 * MIN_POINTS] for instance in instances
        ]
        usable = [instance for instance in usable if instance]
        flat = [polygon for instance in usable for polygon in instance]
        if any(polygon.ndim != 1 or len(polygon) % 2 for polygon in flat):
            raise ValueError("a polygon is a flat list of an even number of coordinates: x, y, x, y, ...")
        # (P, 2) points; (Q + 1,) first point of each polygon; (N + 1,) first polygon of each object
        self._points = np.concatenate([np.zeros(0, np.float32), *flat]).reshape(-1, 2)
        self._point_offsets = np.cumsum([0] + [len(polygon) // 2 for polygon in flat])
        self._offsets = np.cumsum([0] + [len(instance) for instance in usable])

    @classmethod
    def from_arrays(cls, points: np.ndarray, point_offsets: np.ndarray, offsets: np.ndarray, size) -> PolygonList:
        """Make a list from arrays, without copying them.

        Args:
            points: (P, 2) float32.
            point_offsets: (Q + 1,) int64, the first point of each polygon, and P.
            offsets: (N + 1,) int64, the first polygon of each object, and Q.
            size: (width, height).
        """
        new = cls.__new__(cls)
        new.size = as_numbers(size)
        new._points, new._point_offsets, new._offsets = points, point_offsets, offsets
        return new

    def _with_points(self, points: np.ndarray, size) -> PolygonList:
        return self.from_arrays(points, self._point_offsets, self._offsets, size)

    @property
    def polygons(self) -> list[PolygonInstance]:
        return [PolygonInstance([torch.from_numpy(p) for p in self._of(i)], self.size) for i in range(len(self))]

    def _of(self, index: int) -> list[np.ndarray]:
        """Return the polygons of one object, each flat (2 * points,) float32."""
        first, last = self._offsets[index], self._offsets[index + 1]
        bounds = self._point_offsets[first : last + 1]
        return [self._points[a:b].reshape(-1) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]

    def transpose(self, method: int, box_offset: float = TO_REMOVE) -> PolygonList:
        """Flip the polygons: x -> W - x - box_offset or y -> H - y - box_offset."""
        check_flip(method, "PolygonList")
        axis = 0 if method == FLIP_LEFT_RIGHT else 1
        points = self._points.copy()
        points[:, axis] = self.size[axis] - points[:, axis] - box_offset
        return self._with_points(points, self.size)

    def crop(self, box) -> PolygonList:
        """Return the polygons relative to the window box = (x1, y1, x2, y2); points outside are kept.

        They are shifted by the window's corner clamped to the image, but the new size is (x2 - x1, y2 - y1) as given. A
        following `resize` therefore scales by the requested window, as in maskrcnn-benchmark.
        """
        x1, y1, x2, y2 = (float(side) for side in box)
        corner = [min(max(first, 0.0), side - 1.0) for first, side in zip((x1, y1), self.size, strict=True)]
        return self._with_points(self._points - np.array(corner, dtype=np.float32), _window_size(box))

    def resize(self, size, *args, **kwargs) -> PolygonList:
        """Scale the polygons to an image of (width, height).

        Raises:
            ZeroDivisionError: the current size is zero (after a crop to nothing).
        """
        size = as_numbers(size)
        ratios = [float(new) / float(old) for new, old in zip(size, self.size, strict=True)]
        return self._with_points(self._points * np.array(ratios, dtype=np.float32), size)

    def to(self, *args, **kwargs) -> PolygonList:
        return self

    def convert_to_binarymask(self) -> BinaryMaskList:
        if len(self) == 0:
            width, height = self.size
            return BinaryMaskList(torch.zeros((0, int(height), int(width)), dtype=torch.uint8), self.size)
        masks = np.stack([_rasterize(self._of(i), self.size) for i in range(len(self))])
        return BinaryMaskList(torch.from_numpy(masks), self.size, copy=False)

    def __getitem__(self, item) -> PolygonList:
        chosen, offsets = _gather(self._offsets, selected_indices(item, len(self)))
        points, point_offsets = _gather(self._point_offsets, chosen)
        return self.from_arrays(self._points[points], point_offsets, offsets, self.size)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[PolygonInstance]:
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonList(num_instances={len(self)}, image_width={self.size[0]}, image_height={self.size[1]})"


def _gather(offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the chosen items' parts, and their new offsets; item i has offsets[i]:offsets[i + 1]."""
    lengths = offsets[chosen + 1] - offsets[chosen]
    new = np.concatenate(([0], np.cumsum(lengths)))
    return np.repeat(offsets[chosen] - new[:-1], lengths) + np.arange(new[-1]), new


def _window_size(box) -> tuple:
    x1, y1, x2, y2 = (side.item() if isinstance(side, torch.Tensor) else side for side in box)
    return x2 - x1, y2 - y1


def _rasterize(polygons: Sequence[np.ndarray], size) -> np.ndarray:
    """Rasterize flat polygons, and return their union (H, W) uint8."""
    from pycocotools import mask as coco_mask

    width, height = (int(side) for side in size)
    if not polygons or min(width, height) <= 0:
        return np.zeros((max(height, 0), max(width, 0)), dtype=np.uint8)
    runs = coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    union = coco_mask.merge(runs)
    return np.ascontiguousarray(decode_counts(parse_counts(union["counts"], union["size"]), height, width))
