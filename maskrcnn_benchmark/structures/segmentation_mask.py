"""Ground-truth masks of the objects of one image, as polygons (polygons.py) or as pixels (binary_masks.py).

Masks stay on the CPU, whatever device is passed to `to`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from maskrcnn_benchmark.structures.binary_masks import BinaryMaskList
from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, TO_REMOVE
from maskrcnn_benchmark.structures.polygons import PolygonInstance, PolygonList

# The forks' programs import the directions of `transpose` from here.
__all__ = [
    "FLIP_LEFT_RIGHT",
    "FLIP_TOP_BOTTOM",
    "BinaryMaskList",
    "PolygonInstance",
    "PolygonList",
    "SegmentationMask",
]


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
