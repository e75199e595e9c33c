"""Draw semantic maps on images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL
from maskrcnn_benchmark.visual.drawing import draw_segments


def draw_semantic(image: np.ndarray, classes: np.ndarray, names: Sequence[str], font=None) -> np.ndarray:
    """Tint a copy of the image by class, with lines between classes and each class named where it is widest.

    Args:
        image: (H, W, 3) uint8 RGB.
        classes: (H', W') uint8, 0..K-1 or IGNORE_LABEL; resized to the image if its size differs.
        names: K names. A first class called "background" and pixels without a label are not drawn.
        font: font of the names; None is the default.
    """
    first = 1 if names and names[0].strip("_ ").lower() == "background" else 0
    present = [k for k in np.unique(classes).tolist() if first <= k < len(names)]
    numbers = np.zeros(IGNORE_LABEL + 1, dtype=np.uint8)
    numbers[present] = np.arange(1, len(present) + 1)
    return draw_segments(image, numbers[classes], [names[k] for k in present], [k + 1 for k in present], font=font)
