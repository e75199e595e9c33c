"""Colors of classes, and the palette of Pascal VOC's files.

All drawings use `class_colors`. `voc_palette` is only written into index maps (PNG), whose readers expect it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Label k has color k - 1 of this many; later labels start again.
COLORS = 256
# The first color; each later one is as far from all before it as possible.
FIRST = (230, 75, 0)
# Difference of adjacent values of a channel among the candidates.
GRID = 15
# Candidates in Oklab: neither nearly black nor nearly white, and no grays, which are frequent in photographs.
LIGHTNESS = (0.42, 0.93)
CHROMA = 0.11
# Weight of distances in normal vision relative to those in color-blind vision, whose space has one dimension less.
NORMAL_VISION = 0.6

# Linear RGB as seen without green or red receptors (Machado, Oliveira, Fernandes, TVCG 2009; severity 1).
DEUTERANOPIA = np.array(
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881))
)
PROTANOPIA = np.array(
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
)
# Linear RGB to cone responses, and their cube roots to lightness and two color axes (Ottosson 2020).
_OKLAB_CONES = np.array(
    (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
)
_OKLAB_AXES = np.array(
    (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
)


def class_colors(count: int = COLORS) -> np.ndarray:
    """Return the first `count` colors of classes, (count, 3) uint8 RGB, far apart for color-blind eyes, too.

    Each color maximizes the smallest distance (Oklab) to those before it, in normal vision, deuteranopia and
    protanopia. A class thus keeps its color whatever the number of classes.

    Raises:
        ValueError: count is not 0 to COLORS.
    """
    if not 0 <= count <= COLORS:
        raise ValueError(f"class_colors has {COLORS} colors, got count {count}")
    computed = 32
    while computed < count:
        computed *= 2
    return _class_colors(computed)[:count].copy()


def label_colors(labels) -> np.ndarray:
    """Return the colors of labels (N,), 1.., as (N, 3) uint8 RGB; label 0 has the last one."""
    indices = (np.asarray(labels, dtype=np.int64).reshape(-1) - 1) % COLORS
    return class_colors(int(indices.max(initial=-1)) + 1)[indices]


def as_seen(colors: np.ndarray) -> np.ndarray:
    """Return colors (N, 3) uint8 RGB in Oklab, (3, N, 3): in normal vision, deuteranopia and protanopia."""
    values = np.asarray(colors, dtype=np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.stack((linear, linear @ DEUTERANOPIA.T, linear @ PROTANOPIA.T)).clip(0, 1)
    return np.cbrt(seen @ _OKLAB_CONES.T) @ _OKLAB_AXES.T


def contrast_ratio(a, b) -> float:
    """Return WCAG's contrast of two RGB colors, 1 to 21; text is readable from 3 (large) or 4.5 (small) on."""
    values = np.array((a, b), dtype=np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    dark, light = sorted((linear @ (0.2126, 0.7152, 0.0722)).tolist())
    return (light + 0.05) / (dark + 0.05)


@lru_cache
def _class_colors(count: int) -> np.ndarray:
    steps = np.arange(0, 256, GRID)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    candidates = np.concatenate((np.array([FIRST], dtype=np.uint8), candidates))
    seen = as_seen(candidates)
    lightness, chroma = seen[0, :, 0], np.hypot(seen[0, :, 1], seen[0, :, 2])
    usable = (lightness >= LIGHTNESS[0]) & (lightness <= LIGHTNESS[1]) & (chroma >= CHROMA)
    candidates, seen = candidates[usable], seen[:, usable]
    seen[0] *= NORMAL_VISION
    chosen = [0]
    nearest = np.full(len(candidates), np.inf)
    for _ in range(count - 1):
        distances = np.linalg.norm(seen - seen[:, chosen[-1:]], axis=2).min(axis=0)
        nearest = np.minimum(nearest, distances)
        # rounded, because the last bit differs between machines
        chosen.append(int(nearest.round(6).argmax()))
    return candidates[chosen]


def voc_palette(count: int = 256) -> np.ndarray:
    """Return Pascal VOC's colors as (count, 3) uint8 RGB: black, then the colors of its 20 classes, and so on.

    Bit 3i + c of a number is bit 7 - i of channel c.
    """
    numbers = np.arange(count)
    colors = np.zeros((count, 3), dtype=np.uint8)
    for i in range(8):
        for channel in range(3):
            colors[:, channel] |= (((numbers >> (3 * i + channel)) & 1) << (7 - i)).astype(np.uint8)
    return colors
