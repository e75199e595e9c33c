"""Paste predicted masks into the image (Mask R-CNN, section 3.1). Kernel: csrc/cpu/paste_masks.cpp.

Shapes: N masks, M pixels a side of a predicted mask, H x W pixels of the image.

A mask is placed in one of two ways, by `aligned`:

- False, as in maskrcnn-benchmark: the mask is padded by `padding` zeros, so that interpolation fades to 0 at the box's
  edge, and its box grows accordingly about its center. The corners are truncated to integers, both inside the box. The
  mask is resized to the box bilinearly. A pixel is 1 where the result exceeds the threshold.
- True, as in detectron2: pixel centers are at half-integers, and the box is not changed. The mask is sampled bilinearly
  at the pixel centers, with zeros around it. A pixel is 1 where the result is at least the threshold.

A box with a non-finite corner covers no pixels. With `aligned`, nor does a box without area.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.native import library
from maskrcnn_benchmark.structures.rle import MAX_PIXELS, encode_window

FARTHEST = 2.0**30  # corners beyond it are clamped to it


@dataclass(frozen=True)
class MaskPasting:
    """Placement of a mask in the image, see the top of this file. The default is that of maskrcnn-benchmark.

    Args:
        padding: border of zeros around the mask, in its pixels; not used with `aligned`.
        aligned: sample the mask at pixel centers, as detectron2 does.
    """

    padding: int = 1
    aligned: bool = False


DEFAULT_PASTING = MaskPasting()


def paste_rles(
    masks: Tensor, boxes: Tensor, image_size, threshold: float = 0.5, pasting: MaskPasting = DEFAULT_PASTING
) -> list[dict]:
    """Return COCO's compressed run lengths of every mask in the image, without making the image.

    Args:
        masks: (N, M, M) or (N, 1, M, M) probabilities, any floating dtype; read as float32.
        boxes: (N, 4) xyxy in pixels of the image.
        image_size: (width, height), together below 2**31 pixels.
        threshold: at least 0.
        pasting: placement of the masks.

    Returns:
        N times {"size": [height, width], "counts": str}. The computation runs on the CPU, wherever the masks are.

    Raises:
        ValueError: masks and boxes do not match, or a number is out of range.
    """
    masks = _squares(masks, boxes)
    width, height = (int(side) for side in image_size)
    if not threshold >= 0:
        raise ValueError(f"threshold is {threshold}; run lengths require masks of 0 and 1: expected at least 0")
    if pasting.padding < 0 or width < 1 or height < 1 or width * height >= MAX_PIXELS:
        raise ValueError(
            f"run lengths of {width} x {height} pixels with a padding of {pasting.padding} are not possible"
        )
    masks, boxes = masks.detach().cpu(), boxes.detach().cpu()
    op = torch.ops.maskrcnn_benchmark.paste_masks_rle if library.kernels_for(masks.device) else paste_rle_twin
    text, ends = op(masks, boxes, height, width, float(threshold), pasting.padding, pasting.aligned)
    data, ends = text.numpy().tobytes(), [0, *ends.tolist()]
    return [
        {"size": [height, width], "counts": data[begin:end].decode("ascii")}
        for begin, end in zip(ends, ends[1:], strict=False)
    ]


def paste_masks(
    masks: Tensor, boxes: Tensor, image_size, threshold: float = 0.5, pasting: MaskPasting = DEFAULT_PASTING
) -> Tensor:
    """Paste each mask into an image of its own: (N, H, W) uint8; arguments as in `paste_windows`."""
    width, height = (int(side) for side in image_size)
    images = torch.zeros((len(masks), height, width), dtype=torch.uint8, device=masks.device)
    windows = paste_windows(masks, boxes, image_size, threshold, pasting)
    for image, (window, left, top) in zip(images, windows, strict=True):
        image[top : top + window.shape[0], left : left + window.shape[1]] = window
    return images


def paste_windows(
    masks: Tensor, boxes: Tensor, image_size, threshold: float = 0.5, pasting: MaskPasting = DEFAULT_PASTING
) -> Iterator[tuple[Tensor, int, int]]:
    """Yield for each mask the part of the image that it covers: (window (h, w) uint8, left, top).

    Windows are clipped to the image; one outside of it has no pixels.

    Args:
        masks: (N, M, M) or (N, 1, M, M) probabilities.
        boxes: (N, 4) xyxy in pixels of the image.
        image_size: (width, height).
        threshold: below 0 a pixel is the probability times 255.
        pasting: placement of the masks.

    Raises:
        ValueError: masks and boxes do not match.
    """
    masks = _squares(masks, boxes)
    width, height = (int(side) for side in image_size)
    side = masks.shape[-1]
    border = 1 if pasting.aligned else pasting.padding
    padded = F.pad(masks.float(), (border,) * 4)
    corners = boxes.float().clamp(-FARTHEST, FARTHEST)
    if not pasting.aligned:
        corners = _expand(corners, (side + 2 * pasting.padding) / side)
    axis = _sample if pasting.aligned else _stretch
    for mask, (x1, y1, x2, y2), is_box in zip(padded, corners, boxes.isfinite().all(dim=1).tolist(), strict=True):
        if not is_box:
            yield mask.new_zeros((0, 0), dtype=torch.uint8), 0, 0
            continue
        left, *cols = axis(x1, x2, width, len(mask))
        top, *rows = axis(y1, y2, height, len(mask))
        pixels = _mix(_mix(mask, 1, *cols), 0, *rows)
        if threshold < 0:
            pixels = pixels * 255
        else:
            pixels = pixels >= threshold if pasting.aligned else pixels > threshold
        yield pixels.to(torch.uint8), left, top


def paste_rle_twin(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float, padding: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Compute the op in plain PyTorch: concatenated texts (B,) uint8, and where each ends (N,) int64."""
    pasting = MaskPasting(padding, aligned)
    windows = paste_windows(masks, boxes, (width, height), threshold, pasting)
    rles = [encode_window(window.numpy(), left, top, height, width) for window, left, top in windows]
    texts = [rle["counts"].encode() for rle in rles]
    ends = torch.tensor([len(text) for text in texts], dtype=torch.int64).cumsum(0)
    return torch.tensor(list(b"".join(texts)), dtype=torch.uint8), ends


def _squares(masks: Tensor, boxes: Tensor) -> Tensor:
    """Return the masks as (N, M, M)."""
    squares = masks[:, 0] if masks.dim() == 4 and masks.shape[1] == 1 else masks
    if squares.dim() != 3 or squares.shape[1] != squares.shape[2] or boxes.shape != (len(squares), 4):
        raise ValueError(
            f"expected masks (N, M, M) or (N, 1, M, M) and boxes (N, 4), got {tuple(masks.shape)} and "
            f"{tuple(boxes.shape)}"
        )
    if 0 in squares.shape[1:]:
        raise ValueError(f"masks of {tuple(masks.shape)} have no pixels")
    return squares


def _expand(boxes: Tensor, scale: float) -> Tensor:
    """Grow boxes (N, 4) by `scale` about their centers."""
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    return torch.cat((center - half, center + half), dim=1)


def _mix(mask: Tensor, dim: int, low: Tensor, high: Tensor, fraction: Tensor) -> Tensor:
    """Interpolate between lines of the mask along `dim`: low * (1 - fraction) + high * fraction, by index."""
    weight = fraction[:, None] if dim == 0 else fraction
    return mask.index_select(dim, low).mul_(1 - weight).add_(mask.index_select(dim, high).mul_(weight))


def _stretch(low: Tensor, high: Tensor, pixels: int, lines: int) -> tuple[int, Tensor, Tensor, Tensor]:
    """Return the first pixel of a box of integer pixels along one axis, and how `_mix` resizes `lines` lines to it."""
    first, last = int(low), int(high)
    start = min(max(first, 0), pixels)
    at = torch.arange(start, max(min(last + 1, pixels), start), device=low.device)
    scale = torch.tensor(float(lines)) / torch.tensor(float(max(last - first + 1, 1)))
    at = (((at - first).float() + 0.5) * scale.to(low.device) - 0.5).clamp(min=0)
    index = at.long().clamp(max=lines - 1)
    return start, index, (index + 1).clamp(max=lines - 1), (at - index).clamp(max=1)


def _sample(low: Tensor, high: Tensor, pixels: int, lines: int) -> tuple[int, Tensor, Tensor, Tensor]:
    """Do as `_stretch` for a box in continuous coordinates, filled by all but the first and last of `lines` lines."""
    size = lines - 2
    length = high - low
    fade = length / (2 * size)  # distance from the box over which the values fall to those outer lines
    start = min(max(int((low - fade).floor()) - 1, 0), pixels)
    end = max(min(int((high + fade).ceil()) + 1, pixels), start) if length > 0 else start
    unit = (torch.arange(start, end, device=low.device).float() + 0.5 - low) / length * 2 - 1
    at = (((unit + 1) * size - 1) / 2).clamp(-1, size)
    below = at.floor()
    index = below.long() + 1
    return start, index, (index + 1).clamp(max=lines - 1), at - below


if library.declared():

    @torch.library.register_fake("maskrcnn_benchmark::paste_masks_rle")
    def _paste_masks_rle_fake(masks, boxes, height, width, threshold, padding, aligned):
        text = masks.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.uint8)
        return text, masks.new_empty(len(masks), dtype=torch.int64)
