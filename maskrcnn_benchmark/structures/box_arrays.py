"""Arithmetic on boxes as NumPy arrays, for both pixel conventions; `boxes` has the same for tensors.

Shapes: N, M boxes; a box is x1, y1, x2, y2 in pixels.

`offset` is added to a coordinate difference to get the side: 1 for boxes with inclusive corners, 0 for continuous ones.
"""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray, offset: float = 0) -> np.ndarray:
    """Return the areas (N,) of boxes (N, 4), in square pixels; 0 if a side is negative."""
    return (boxes[:, 2:] - boxes[:, :2] + offset).clip(min=0).prod(axis=1)


def intersections(a: np.ndarray, b: np.ndarray, offset: float = 0) -> np.ndarray:
    """Return the common areas (N, M) of boxes (N, 4) and (M, 4)."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    return (high - low + offset).clip(min=0).prod(axis=2)


def pairwise_iou(a: np.ndarray, b: np.ndarray, offset: float = 0) -> np.ndarray:
    """Return the intersection over union (N, M) of boxes (N, 4) and (M, 4); 0 for boxes without area."""
    common = intersections(a, b, offset)
    union = areas(a, offset)[:, None] + areas(b, offset) - common
    return common / np.maximum(union, np.finfo(np.float64).tiny)
