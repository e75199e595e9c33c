"""Ground-truth masks of the objects of one image, as polygons or as pixels.

Shapes: N objects, Q polygons and P points of all of them together, H x W pixels of the image.
Masks stay on the CPU, whatever device is passed to `to`. Pixel masks are uint8, 0 or 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, TO_REMOVE
from maskrcnn_benchmark.structures.rle import decode_counts, parse_counts

# A polygon with fewer points has no area.
MIN_POINTS = 3


def _check_method(method: int, what: str) -> None:
    if method not in (FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM):
        raise NotImplementedError(
            f"{what}.transpose supports FLIP_LEFT_RIGHT (0) and FLIP_TOP_BOTTOM (1), got {method!r}"
        )


def _numbers(size) -> tuple:
    """Return (width, height) as Python numbers; 0-dim tensors are unpacked."""
    width, height = (side.item() if isinstance(side, (torch.Tensor, np.generic)) else side for side in size)
    return width, height


def _indices(item, length: int) -> np.ndarray:
    """Return the positions selected by an int, slice, index sequence or bool (or uint8) mask."""
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu().numpy()
        if item.dtype == np.uint8:
            item = item.astype(bool)
    elif isinstance(item, (list, tuple)) and not item:
        item = np.zeros(0, dtype=np.int64)
    return np.atleast_1d(np.arange(length)[item])


def _gather(offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the parts of the chosen items, and their new offsets; i has offsets[i]:offsets[i + 1]."""
    lengths = offsets[chosen + 1] - offsets[chosen]
    new = np.concatenate(([0], np.cumsum(lengths)))
    return np.repeat(offsets[chosen] - new[:-1], lengths) + np.arange(new[-1]), new


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
        self.size = _numbers(size)

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
        return torch.from_numpy(_rasterise([polygon.numpy() for polygon in self.polygons], self.size))

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
        self.size = _numbers(size)
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
        new.size = _numbers(size)
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
        _check_method(method, "PolygonList")
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
        size = _numbers(size)
        ratios = [float(new) / float(old) for new, old in zip(size, self.size, strict=True)]
        return self._with_points(self._points * np.array(ratios, dtype=np.float32), size)

    def to(self, *args, **kwargs) -> PolygonList:
        return self

    def convert_to_binarymask(self) -> BinaryMaskList:
        if len(self) == 0:
            width, height = self.size
            return BinaryMaskList(torch.zeros((0, int(height), int(width)), dtype=torch.uint8), self.size)
        masks = np.stack([_rasterise(self._of(i), self.size) for i in range(len(self))])
        return BinaryMaskList(torch.from_numpy(masks), self.size, copy=False)

    def __getitem__(self, item) -> PolygonList:
        chosen, offsets = _gather(self._offsets, _indices(item, len(self)))
        points, point_offsets = _gather(self._point_offsets, chosen)
        return self.from_arrays(self._points[points], point_offsets, offsets, self.size)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[PolygonInstance]:
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonList(num_instances={len(self)}, image_width={self.size[0]}, image_height={self.size[1]})"


def _window_size(box) -> tuple:
    x1, y1, x2, y2 = (side.item() if isinstance(side, torch.Tensor) else side for side in box)
    return x2 - x1, y2 - y1


def _rasterise(polygons: Sequence[np.ndarray], size) -> np.ndarray:
    """Rasterize flat polygons, and return their union (H, W) uint8."""
    from pycocotools import mask as coco_mask

    width, height = (int(side) for side in size)
    if not polygons or min(width, height) <= 0:
        return np.zeros((max(height, 0), max(width, 0)), dtype=np.uint8)
    runs = coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    union = coco_mask.merge(runs)
    return np.ascontiguousarray(decode_counts(parse_counts(union["counts"], union["size"]), height, width))


class BinaryMaskList:
    """Pixel masks of N objects.

    Args:
        masks: tensor (N, H, W) or (H, W), list of tensors (H, W), list of COCO RLE objects (compressed or not), or a
            BinaryMaskList.
        size: (width, height).
        copy: False shares the memory of a uint8 tensor.

    Raises:
        ValueError: masks has none of these forms, or another size.
    """

    def __init__(self, masks, size, copy: bool = True):
        width, height = self.size = _numbers(size)
        if isinstance(masks, BinaryMaskList):
            masks = masks.masks
        elif isinstance(masks, (list, tuple)):
            if len(masks) == 0:
                masks = torch.zeros((0, int(height), int(width)), dtype=torch.uint8)
            elif all(isinstance(mask, dict) for mask in masks):
                masks, copy = _decode(masks), False
            elif all(isinstance(mask, torch.Tensor) for mask in masks):
                masks, copy = torch.stack([mask.to("cpu") for mask in masks]), False
        if not isinstance(masks, torch.Tensor):
            raise ValueError(f"BinaryMaskList requires a tensor, a list of tensors or of RLEs, got {masks!r:.100}")
        masks = masks.detach().to("cpu")
        if masks.dim() == 2:
            masks = masks[None]
        if masks.dim() != 3 or tuple(masks.shape[1:]) != (height, width):
            raise ValueError(f"masks of shape {tuple(masks.shape)} do not match an image of {width} x {height} pixels")
        if masks.dtype == torch.uint8:
            self.masks = masks.clone() if copy else masks
        else:
            self.masks = masks.to(torch.uint8)

    def transpose(self, method: int, box_offset: float = TO_REMOVE) -> BinaryMaskList:
        """Flip the masks. box_offset has no effect on pixels."""
        _check_method(method, "BinaryMaskList")
        return BinaryMaskList(self.masks.flip(2 if method == FLIP_LEFT_RIGHT else 1), self.size, copy=False)

    def crop(self, box) -> BinaryMaskList:
        """Crop to the window box = (x1, y1, x2, y2) with rounded corners, clipped to the image, at least one pixel."""
        width, height = self.size
        x1, y1, x2, y2 = (round(float(side)) for side in box)
        x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
        x2, y2 = max(min(x2, width), x1 + 1), max(min(y2, height), y1 + 1)
        return BinaryMaskList(self.masks[:, y1:y2, x1:x2].contiguous(), (x2 - x1, y2 - y1), copy=False)

    def resize(self, size, *args, **kwargs) -> BinaryMaskList:
        """Resize to (width, height). A pixel is 1 only where bilinear interpolation gives 1."""
        width, height = (int(side) for side in _numbers(size))
        if min(width, height) <= 0:
            raise ValueError(f"masks can only be resized to at least one pixel, got size {size}")
        if len(self) == 0:
            return BinaryMaskList([], (width, height))
        resized = F.interpolate(self.masks[None].float(), size=(height, width), mode="bilinear", align_corners=False)
        return BinaryMaskList(resized[0].to(torch.uint8), (width, height), copy=False)

    def convert_to_polygon(self) -> PolygonList:
        """Return the outer contours (Teh-Chin L1 approximation). Holes and objects of very few pixels are lost."""
        import cv2

        instances = []
        for mask in self.masks.numpy():
            contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
            instances.append([contour.reshape(-1).tolist() for contour in contours])
        return PolygonList(instances, self.size)

    def to(self, *args, **kwargs) -> BinaryMaskList:
        return self

    def __getitem__(self, item) -> BinaryMaskList:
        chosen = torch.from_numpy(_indices(item, len(self)))
        return BinaryMaskList(self.masks[chosen], self.size, copy=False)

    def __len__(self) -> int:
        return len(self.masks)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.masks)

    def __repr__(self) -> str:
        return f"BinaryMaskList(num_instances={len(self)}, image_width={self.size[0]}, image_height={self.size[1]})"


def _decode(rles: Sequence[dict]) -> torch.Tensor:
    """Decode COCO RLE objects of one size to (N, H, W) uint8."""
    masks = [decode_counts(parse_counts(rle["counts"], rle["size"]), *map(int, rle["size"])) for rle in rles]
    return torch.from_numpy(np.stack(masks))


class SegmentationMask:
    """Masks of N objects of one image, the field "masks" of a BoxList.

    Args:
        instances: input of PolygonList (mode "poly") or BinaryMaskList (mode "mask").
        size: (width, height) of the image, in pixels; numbers or 0-dim tensors.
        mode: "poly" or "mask".

    Raises:
        NotImplementedError: the mode is unknown.
    """

    def __init__(self, instances, size, mode: str = "poly"):
        if mode not in ("poly", "mask"):
            raise NotImplementedError(f"SegmentationMask mode is {mode!r}; expected 'poly' or 'mask'")
        self.mode = mode
        self.instances = (PolygonList if mode == "poly" else BinaryMaskList)(instances, size)

    @classmethod
    def _around(cls, instances) -> SegmentationMask:
        new = cls.__new__(cls)
        new.mode = "poly" if isinstance(instances, PolygonList) else "mask"
        new.instances = instances
        return new

    @property
    def size(self) -> tuple:
        return self.instances.size

    def transpose(self, method: int, box_offset: float = TO_REMOVE) -> SegmentationMask:
        """Flip the masks. box_offset is that of the boxes, see BoxList."""
        return self._around(self.instances.transpose(method, box_offset))

    def crop(self, box) -> SegmentationMask:
        return self._around(self.instances.crop(box))

    def resize(self, size, *args, **kwargs) -> SegmentationMask:
        return self._around(self.instances.resize(size, *args, **kwargs))

    def to(self, *args, **kwargs) -> SegmentationMask:
        return self

    def convert(self, mode: str) -> SegmentationMask:
        """Return the same masks in another mode (self if it has that mode already)."""
        if mode not in ("poly", "mask"):
            raise NotImplementedError(f"SegmentationMask mode is {mode!r}; expected 'poly' or 'mask'")
        if mode == self.mode:
            return self
        if mode == "poly":
            return self._around(self.instances.convert_to_polygon())
        return self._around(self.instances.convert_to_binarymask())

    def get_mask_tensor(self) -> torch.Tensor:
        """Return (N, H, W) uint8, or (H, W) for a single object."""
        masks = self.convert("mask").instances.masks
        return masks[0] if len(masks) == 1 else masks

    def __getitem__(self, item) -> SegmentationMask:
        """Select objects by an int, slice, index tensor or list, or bool mask."""
        return self._around(self.instances[item])

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[SegmentationMask]:
        """Iterate over one SegmentationMask per object."""
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        width, height = self.size
        return (
            f"SegmentationMask(num_instances={len(self)}, image_width={width}, image_height={height}, mode={self.mode})"
        )
