"""Convert logits to classes in an image's own size.

Shapes: N images, K classes, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def upsample(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Resize maps (N, C, h, w) bilinearly to `size` (height, width). Maps of that size are returned unchanged.

    Args:
        align_corners: align the centers of the corner points of both maps; otherwise align their outer edges.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if maps.shape[-2:] == (1, 1):
        # F.interpolate would return contiguous maps, and torch.cat keeps channels_last only if all inputs have it.
        return maps.expand(-1, -1, *size).contiguous(memory_format=torch.channels_last)
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=align_corners)


def classes_in_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the most likely class of every pixel of the image resized to `size` (width, height): (H, W) uint8, CPU.

    Args:
        logits: (K, h, w) of the image without its padding, K at most 256.
    """
    width, height = size
    return upsample(logits[None], (height, width))[0].argmax(dim=0).to(torch.uint8).cpu()
