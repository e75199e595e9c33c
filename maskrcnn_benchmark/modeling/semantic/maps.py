"""Resize logits, and convert them to class maps.

Shapes: N images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def classes_of_images(
    logits: Tensor, image_sizes: Sequence[tuple[int, int]], output_sizes: Sequence[tuple[int, int]] | None = None
) -> list[Tensor]:
    """Return the most likely class of every pixel of every image.

    Args:
        logits: (N, K, H, W) of a padded batch, K at most 256.
        image_sizes: N (height, width) of the images without the padding.
        output_sizes: N (width, height) of the results; default: as the images.

    Returns:
        N maps (height, width), uint8, on the CPU.
    """
    if output_sizes is None:
        output_sizes = [(width, height) for height, width in image_sizes]
    classes = []
    for maps, (height, width), size in zip(logits, image_sizes, output_sizes, strict=True):
        resized = upsample(maps[None, :, :height, :width], size[::-1])
        classes.append(resized[0].argmax(dim=0).to(torch.uint8).cpu())
    return classes
