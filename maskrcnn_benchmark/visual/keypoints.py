"""Draw keypoints on an image.

Shapes: N objects, K keypoints of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.visual.drawing import INK, PAPER
from maskrcnn_benchmark.visual.palette import label_colors

# Detectron's keypoint scores are logits; those above this one are drawn.
SCORE = 2.0


def draw_keypoints(
    image: np.ndarray,
    points: np.ndarray,
    scores: np.ndarray | None = None,
    radius: int = 3,
    connections: Sequence[tuple[int, int]] | None = None,
    threshold: float = SCORE,
) -> np.ndarray:
    """Draw a dot per keypoint on a copy of the image, in one color per keypoint, and lines between connected ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (N, K, 3) x, y, visibility; those with visibility 0 are left out.
        scores: (N, K) logits; keypoints at the threshold or below are left out. None draws all.
        radius: pixels.
        connections: pairs of indices; None takes a person's for COCO's 17 keypoints, none for others.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    count = points.shape[1]
    if connections is None:
        connections = PersonKeypoints.CONNECTIONS if count == len(PersonKeypoints.NAMES) else ()
    colors = [tuple(color) for color in label_colors(np.arange(1, count + 1)).tolist()]
    for i, of_object in enumerate(points):
        drawn = of_object[:, 2] > 0
        if scores is not None:
            drawn = drawn & (np.asarray(scores[i]) > threshold)
        places = [tuple(place) for place in of_object[:, :2].tolist()]
        lines = [(places[a], places[b], colors[b]) for a, b in connections if drawn[a] and drawn[b]]
        lines += _trunk(of_object[:, :2], drawn, colors) if count == len(PersonKeypoints.NAMES) else []
        for start, end, color in lines:
            draw.line((start, end), fill=color, width=2)
        for k in np.flatnonzero(drawn).tolist():
            x, y = places[k]
            rim = INK if sum(colors[k]) > 380 else PAPER
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colors[k], outline=rim)
    return np.asarray(canvas).copy()


def _trunk(places: np.ndarray, drawn: np.ndarray, colors) -> list[tuple]:
    """Return a person's lines from the nose to the middle of the shoulders, and from there to that of the hips."""
    nose, *others = (
        PersonKeypoints.NAMES.index(name)
        for name in ("nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip")
    )
    shoulders, hips = others[:2], others[2:]
    if not drawn[shoulders].all():
        return []
    neck, waist = tuple(places[shoulders].mean(axis=0).tolist()), tuple(places[hips].mean(axis=0).tolist())
    lines = [(tuple(places[nose].tolist()), neck, colors[nose])] if drawn[nose] else []
    return lines + ([(neck, waist, colors[hips[0]])] if drawn[hips].all() else [])
