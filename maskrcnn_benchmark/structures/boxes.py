"""Arithmetic on box tensors, for both pixel conventions.

Shapes: N, M boxes; a box is x1, y1, x2, y2 in pixels, float.

`offset` is added to a coordinate difference to get the side: 1 in the inclusive convention of maskrcnn-benchmark (a box
from pixel 3 to pixel 3 is one pixel wide), 0 in the continuous one.
"""

from __future__ import annotations

import torch


def box_area(boxes: torch.Tensor, offset: float = 1.0) -> torch.Tensor:
    """Return the areas (N,) of boxes (N, 4), in square pixels."""
    return (boxes[:, 2] - boxes[:, 0] + offset) * (boxes[:, 3] - boxes[:, 1] + offset)


def box_iou(boxes1: torch.Tensor, boxes2: torch.Tensor, offset: float = 1.0) -> torch.Tensor:
    """Return the intersection over union (N, M) of boxes1 (N, 4) and boxes2 (M, 4), without an epsilon.

    The IoU of boxes without area is 0.
    """
    # Per coordinate: on the CPU this is several times as fast as a last dimension of 2.
    x1, y1, x2, y2 = boxes1[:, :, None].unbind(dim=1)
    other_x1, other_y1, other_x2, other_y2 = boxes2.t().contiguous().unbind(dim=0)
    width = (torch.minimum(x2, other_x2) - torch.maximum(x1, other_x1) + offset).clamp(min=0)
    height = (torch.minimum(y2, other_y2) - torch.maximum(y1, other_y1) + offset).clamp(min=0)
    intersection = width * height
    union = box_area(boxes1, offset)[:, None] + box_area(boxes2, offset)[None, :] - intersection
    return (intersection / union).nan_to_num_(nan=0.0)


def clip_boxes(boxes: torch.Tensor, image_size: tuple[int, int], offset: float = 1.0) -> torch.Tensor:
    """Clip boxes (N, 4) to an image of image_size (width, height): coordinates within [0, side - offset]."""
    width, height = image_size
    x = boxes[:, 0::2].clamp(0, width - offset)
    y = boxes[:, 1::2].clamp(0, height - offset)
    return torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=1)
