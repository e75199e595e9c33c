"""Mask pasting in the simplest way: the probability of every pixel, before the threshold."""

from __future__ import annotations

import numpy as np


def pasted_probability(mask, box, image_size, padding: int = 1) -> np.ndarray:
    """Return (H, W) float64 probabilities of one mask, 0 outside of it.

    Args:
        mask: (M, M) probabilities.
        box: x1, y1, x2, y2.
        image_size: (width, height).
    """
    width, height = image_size
    side = mask.shape[0]
    padded = np.pad(np.asarray(mask, dtype=np.float64), padding)
    x1, y1, x2, y2 = (np.float32(number) for number in box)
    scale = np.float32((side + 2 * padding) / side)
    half_width, half_height = (x2 - x1) * np.float32(0.5) * scale, (y2 - y1) * np.float32(0.5) * scale
    center_x, center_y = (x2 + x1) * np.float32(0.5), (y2 + y1) * np.float32(0.5)
    left, right = int(center_x - half_width), int(center_x + half_width)
    top, bottom = int(center_y - half_height), int(center_y + half_height)
    rows = _weights(side + 2 * padding, max(bottom - top + 1, 1))
    columns = _weights(side + 2 * padding, max(right - left + 1, 1))
    window = rows @ padded @ columns.T
    image = np.zeros((height, width))
    for row in range(window.shape[0]):
        if 0 <= top + row < height:
            for column in range(window.shape[1]):
                if 0 <= left + column < width:
                    image[top + row, left + column] = window[row, column]
    return image


def _weights(old: int, new: int) -> np.ndarray:
    """Return (new, old): the bilinear weight of each old sample in each new one, at pixel centers."""
    weights = np.zeros((new, old))
    for i in range(new):
        place = max((i + 0.5) * old / new - 0.5, 0.0)
        first = int(place)
        weights[i, first] += 1 - (place - first)
        weights[i, min(first + 1, old - 1)] += place - first
    return weights
