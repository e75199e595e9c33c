"""Masks of the objects of one image as pixels.

Shapes: N objects, H x W pixels of the image. Masks are uint8, 0 or 1, and stay on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, TO_REMOVE, check_flip
from maskrcnn_benchmark.structures.rle import decode_counts, parse_counts


def as_numbers(size) -> tuple:
    """Return (width, height) as Python numbers; 0-dim tensors are unpacked."""
    width, height = (side.item() if isinstance(side, (torch.Tensor, np.generic)) else side for side in size)
    return width, height


def selected_indices(item, length: int) -> np.ndarray:
    """Return the positions selected by an int, slice, index sequence or bool (or uint8) mask."""
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu().numpy()
        if item.dtype == np.uint8:
            item = item.astype(bool)
    elif isinstance(item, (list, tuple)) and not item:
        item = np.zeros(0, dtype=np.int64)
    return np.atleast_1d(np.arange(length)[item])


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
        width, height = self.size = as_numbers(size)
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
        check_flip(method, "BinaryMaskList")
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
        width, height = (int(side) for side in as_numbers(size))
        if min(width, height) <= 0:
            raise ValueError(f"masks can only be resized to at least one pixel, got size {size}")
        if len(self) == 0:
            return BinaryMaskList([], (width, height))
        resized = F.interpolate(self.masks[None].float(), size=(height, width), mode="bilinear", align_corners=False)
        return BinaryMaskList(resized[0].to(torch.uint8), (width, height), copy=False)

    def convert_to_polygon(self):
        """Return the outer contours as a PolygonList (Teh-Chin L1 approximation).

        Holes and objects of very few pixels are lost.
        """
        import cv2

        from maskrcnn_benchmark.structures.polygons import (
            PolygonList,  # which imports this file: they convert both ways
        )

        instances = []
        for mask in self.masks.numpy():
            contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
            instances.append([contour.reshape(-1).tolist() for contour in contours])
        return PolygonList(instances, self.size)

    def to(self, *args, **kwargs) -> BinaryMaskList:
        return self

    def __getitem__(self, item) -> BinaryMaskList:
        chosen = torch.from_numpy(selected_indices(item, len(self)))
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
