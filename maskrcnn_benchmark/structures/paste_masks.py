"""Masks predicted in their boxes, put into the picture (Mask R-CNN, section 3.1). Kernel: csrc/cpu/paste_masks.cpp.

Shapes: N masks, M pixels a side of a predicted mask, H x W pixels of the picture.

Two ways to place a mask, by `aligned`:

- False, maskrcnn-benchmark's: the mask gets a border of `padding` zeros, so that interpolation fades to nothing at the
  box's edge, and its box grows accordingly about its centre; the corners are cut to whole pixels (towards zero), both
  inside the box. The mask is resized to it bilinearly. A pixel is 1 where the result exceeds the threshold.
- True, detectron2's: pixel centres lie at half-integers and the box is taken as it is; the mask is sampled bilinearly
  at the centres, with zeros around it. A pixel is 1 where the result is at least the threshold.

A box with a corner that is not finite covers nothing; with `aligned`, neither does one without area.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.native import library
from maskrcnn_benchmark.structures.rle import MAX_PIXELS, encode_window

FARTHEST = 2.0**30  # corners beyond it are taken for it


@dataclass(frozen=True)
class MaskPasting:
    """How a mask is placed in the image, see the top of this file. The default is maskrcnn-benchmark's way.

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
    """COCO's compressed run lengths of every mask in the picture, without the picture in between.

    Args:
        masks: (N, M, M) or (N, 1, M, M) probabilities, any floating dtype; read as float32.
        boxes: (N, 4) xyxy in pixels of the picture.
        image_size: (width, height), together below 2**31 pixels.
        threshold: at least 0.
        pasting: where the mask lies.

    Returns:
        N times {"size": [height, width], "counts": str}. The work is done on the CPU, wherever the masks are.

    Raises:
        ValueError: masks and boxes do not fit together, or a number is out of range.
    """
    masks = _squares(masks, boxes)
    width, height = (int(side) for side in image_size)
    if not threshold >= 0:
        raise ValueError(f"threshold is {threshold}; run lengths are of masks of 0 and 1: wanted at least 0")
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
    """Pictures (N, H, W) uint8 with one mask each; arguments as in `paste_windows`."""
    width, height = (int(side) for side in image_size)
    pictures = torch.zeros((len(masks), height, width), dtype=torch.uint8, device=masks.device)
    windows = paste_windows(masks, boxes, image_size, threshold, pasting)
    for picture, (window, left, top) in zip(pictures, windows, strict=True):
        picture[top : top + window.shape[0], left : left + window.shape[1]] = window
    return pictures


def paste_windows(
    masks: Tensor, boxes: Tensor, image_size, threshold: float = 0.5, pasting: MaskPasting = DEFAULT_PASTING
) -> Iterator[tuple[Tensor, int, int]]:
    """The part of the picture that each mask covers, one after the other: (window (h, w) uint8, left, top).

    Windows are clipped to the picture; one outside it has no pixels.

    Args:
        masks: (N, M, M) or (N, 1, M, M) probabilities.
        boxes: (N, 4) xyxy in pixels of the picture.
        image_size: (width, height).
        threshold: below 0 no decision is made, and a pixel is the probability times 255.
        pasting: where the mask lies.

    Raises:
        ValueError: masks and boxes do not fit together.
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
    """The compiled op: texts one after the other (B,) uint8, and where each ends (N,) int64."""
    pasting = MaskPasting(padding, aligned)
    windows = paste_windows(masks, boxes, (width, height), threshold, pasting)
    rles = [encode_window(window.numpy(), left, top, height, width) for window, left, top in windows]
    texts = [rle["counts"].encode() for rle in rles]
    ends = torch.tensor([len(text) for text in texts], dtype=torch.int64).cumsum(0)
    return torch.tensor(list(b"".join(texts)), dtype=torch.uint8), ends


def _squares(masks: Tensor, boxes: Tensor) -> Tensor:
    """Masks as (N, M, M)."""
    squares = masks[:, 0] if masks.dim() == 4 and masks.shape[1] == 1 else masks
    if squares.dim() != 3 or squares.shape[1] != squares.shape[2] or boxes.shape != (len(squares), 4):
        raise ValueError(
            f"wanted masks (N, M, M) or (N, 1, M, M) and boxes (N, 4), got {tuple(masks.shape)} and "
            f"{tuple(boxes.shape)}"
        )
    if 0 in squares.shape[1:]:
        raise ValueError(f"masks of {tuple(masks.shape)} have no pixels")
    return squares


def _expand(boxes: Tensor, scale: float) -> Tensor:
    """Boxes (N, 4) grown by `scale` about their centres."""
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    center = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    return torch.cat((center - half, center + half), dim=1)


def _mix(mask: Tensor, dim: int, low: Tensor, high: Tensor, fraction: Tensor) -> Tensor:
    """Lines along `dim`, each between two lines of the mask: low * (1 - fraction) + high * fraction, by index."""
    weight = fraction[:, None] if dim == 0 else fraction
    return mask.index_select(dim, low).mul_(1 - weight).add_(mask.index_select(dim, high).mul_(weight))


def _stretch(low: Tensor, high: Tensor, pixels: int, lines: int) -> tuple[int, Tensor, Tensor, Tensor]:
    """One axis of a box of whole pixels to which `lines` lines are resized: first pixel, and what _mix takes."""
    first, last = int(low), int(high)
    start = min(max(first, 0), pixels)
    at = torch.arange(start, max(min(last + 1, pixels), start), device=low.device)
    scale = torch.tensor(float(lines)) / torch.tensor(float(max(last - first + 1, 1)))
    at = (((at - first).float() + 0.5) * scale.to(low.device) - 0.5).clamp(min=0)
    index = at.long().clamp(max=lines - 1)
    return start, index, (index + 1).clamp(max=lines - 1), (at - index).clamp(max=1)


def _sample(low: Tensor, high: Tensor, pixels: int, lines: int) -> tuple[int, Tensor, Tensor, Tensor]:
    """One axis of a box in continuous coordinates, which all but the first and last of `lines` lines fill."""
    size = lines - 2
    length = high - low
    fade = length / (2 * size)  # so far around the box the values still fall to those outer lines
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
