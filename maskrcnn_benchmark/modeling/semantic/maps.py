"""From logits to classes in an image's own size.

Shapes: N images, K classes, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def upsample(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Resize maps (N, C, h, w) bilinearly to `size` (height, width); return them as they are where they have it.

    Args:
        align_corners: the outer points of both maps lie on each other; otherwise the outer edges do.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if maps.shape[-2:] == (1, 1):
        # torch would return contiguous maps, and torch.cat keeps channels_last only where all parts have it
        return maps.expand(-1, -1, *size).contiguous(memory_format=torch.channels_last)
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=align_corners)


def classes_in_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the likeliest class of every pixel of the image resized to `size` (width, height): (H, W) uint8, CPU.

    Args:
        logits: (K, h, w) of the image without its padding, K at most 256.
    """
    width, height = size
    return upsample(logits[None], (height, width))[0].argmax(dim=0).to(torch.uint8).cpu()
