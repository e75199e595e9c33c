"""Keypoints drawn on an image.

Shapes: N objects, K keypoints of each.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn_benchmark.visual.drawing import INK, PAPER
from maskrcnn_benchmark.visual.palette import label_colors

# Detectron's keypoint scores are logits; those above this one are drawn.
SCORE = 2.0


def draw_keypoints(image: np.ndarray, points: np.ndarray, scores: np.ndarray | None = None, radius: int = 3):
    """Draw a dot at each keypoint, in one colour a keypoint; return a copy of the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (N, K, 3) x, y, visibility; those with visibility 0 are left out.
        scores: (N, K) logits; keypoints at SCORE or below are left out. None draws all.
        radius: pixels.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    colors = [tuple(color) for color in label_colors(np.arange(1, points.shape[1] + 1)).tolist()]
    for i, of_object in enumerate(points):
        for k, (x, y, visibility) in enumerate(of_object.tolist()):
            if visibility <= 0 or (scores is not None and scores[i, k] <= SCORE):
                continue
            rim = INK if sum(colors[k]) > 380 else PAPER
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colors[k], outline=rim)
    return np.asarray(canvas).copy()
