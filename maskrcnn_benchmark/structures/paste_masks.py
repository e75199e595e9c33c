"""Masks predicted in their boxes, put into the picture (Mask R-CNN, section 3.1, as maskrcnn-benchmark does it).

Shapes: N masks, M pixels a side of a predicted mask, H x W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F


def paste_windows(
    masks: torch.Tensor, boxes: torch.Tensor, image_size, threshold: float = 0.5, padding: int = 1
) -> Iterator[tuple[torch.Tensor, int, int]]:
    """The part of the picture that each mask covers, one after the other: (window (h, w) uint8, left, top).

    A mask gets a border of `padding` zeros, so that interpolation fades to nothing at the box's edge, and its box
    grows accordingly about its centre; the corners are cut to whole pixels (towards zero), both inside the box. The
    mask is resized to it bilinearly. Windows are clipped to the picture; one outside it has no pixels.

    Args:
        masks: (N, M, M) or (N, 1, M, M) probabilities.
        boxes: (N, 4) xyxy in pixels of the picture.
        image_size: (width, height).
        threshold: a pixel is 1 where the probability exceeds this; below 0 no decision is made, and it is the
            probability times 255.

    Raises:
        ValueError: masks and boxes do not fit together.
    """
    if masks.dim() == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.dim() != 3 or masks.shape[1] != masks.shape[2] or len(masks) != len(boxes):
        raise ValueError(
            f"wanted masks (N, M, M) or (N, 1, M, M) and boxes (N, 4), got {tuple(masks.shape)} and "
            f"{tuple(boxes.shape)}"
        )
    width, height = (int(side) for side in image_size)
    side = masks.shape[-1]
    padded = F.pad(masks.float(), (padding,) * 4)
    corners = _expand(boxes.float(), (side + 2 * padding) / side).to(torch.int32).tolist()
    for mask, (x1, y1, x2, y2) in zip(padded, corners, strict=True):
        left, top = min(max(x1, 0), width), min(max(y1, 0), height)
        right, bottom = max(min(x2 + 1, width), left), max(min(y2 + 1, height), top)
        if left >= right or top >= bottom:
            yield mask.new_zeros((0, 0), dtype=torch.uint8), left, top
            continue
        size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        pixels = F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        pixels = pixels[top - y1 : bottom - y1, left - x1 : right - x1]
        pixels = pixels > threshold if threshold >= 0 else pixels * 255
        yield pixels.to(torch.uint8), left, top


def paste_masks(
    masks: torch.Tensor, boxes: torch.Tensor, image_size, threshold: float = 0.5, padding: int = 1
) -> torch.Tensor:
    """Pictures (N, H, W) uint8 with one mask each; arguments as in `paste_windows`."""
    width, height = (int(side) for side in image_size)
    pictures = torch.zeros((len(masks), height, width), dtype=torch.uint8, device=masks.device)
    windows = paste_windows(masks, boxes, image_size, threshold, padding)
    for picture, (window, left, top) in zip(pictures, windows, strict=True):
        picture[top : top + window.shape[0], left : left + window.shape[1]] = window
    return pictures


def _expand(boxes: torch.Tensor, scale: float) -> torch.Tensor:
    """Boxes (N, 4) grown by `scale` about their centres."""
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    return torch.cat((center - half, center + half), dim=1)
