"""Colours of classes in palette images."""

from __future__ import annotations

import numpy as np


def voc_palette(count: int = 256) -> np.ndarray:
    """Return Pascal VOC's colours as (count, 3) uint8 RGB: black, then the colours of its 20 classes, and so on.

    Bit 3i + c of a number is bit 7 - i of colour c.
    """
    numbers = np.arange(count)
    colors = np.zeros((count, 3), dtype=np.uint8)
    for i in range(8):
        for channel in range(3):
            colors[:, channel] |= (((numbers >> (3 * i + channel)) & 1) << (7 - i)).astype(np.uint8)
    return colors
