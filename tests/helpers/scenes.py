"""Random images for the doctor's search for near-duplicates."""

from __future__ import annotations

import numpy as np
from PIL import Image


def random_scene(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Return an image (width, height) with structure at the scale of the hash.

    Neighbouring cells differ by 20 and more, so that no bit of the hash is decided by rounding.
    """
    gray = np.cumsum(rng.integers(60, 196, (8, 9, 1)), axis=1) % 236
    cells = (gray + rng.integers(0, 20, (8, 9, 3))).astype(np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
