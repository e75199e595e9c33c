"""Merge overlapping instances and per-pixel classes into disjoint segments.

Shapes: D detections, M pixels a side of a mask, H x W pixels of the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.panoptic_map import VOID, PanopticMap
from maskrcnn_benchmark.structures.paste_masks import DEFAULT_PASTING, MaskPasting, paste_windows


@dataclass(frozen=True)
class MergeRules:
    """Thresholds of the merge (Panoptic FPN, section 3), counted in pixels of the output; defaults are detectron2's.

    Args:
        score: instances below it are dropped.
        overlap: instances of which more than this fraction is already taken are dropped.
        stuff_area: stuff with fewer free pixels is dropped.
    """

    score: float = 0.5
    overlap: float = 0.5
    stuff_area: int = 4096


def merge_segments(
    detections: BoxList, classes: Tensor, rules: MergeRules, pasting: MaskPasting = DEFAULT_PASTING
) -> PanopticMap:
    """Assign pixels to instances in descending order of scores, then the remaining pixels to stuff.

    Args:
        detections: BoxList on the CPU, in pixels of the output, with the fields "scores", "labels" and "mask"
            (D, 1, M, M), probabilities relative to the boxes.
        classes: (H, W) uint8 on the CPU, 0 for things, otherwise semantic classes of stuff.
        pasting: how masks are pasted.
    """
    chosen = detections.get_field("scores").argsort(descending=True, stable=True)
    detections = detections[chosen[detections.get_field("scores")[chosen] >= rules.score]].convert("xyxy")
    masks = detections.get_field("mask").float()
    windows = paste_windows(masks, detections.bbox, detections.size, pasting=pasting)
    instances = (
        ({"label": label, "is_thing": True, "score": score}, window.numpy() != 0, left, top)
        for label, score, (window, left, top) in zip(
            detections.get_field("labels").tolist(), detections.get_field("scores").tolist(), windows, strict=True
        )
    )
    return share_pixels(instances, classes.numpy(), rules)


def share_pixels(
    instances: Iterable[tuple[dict, np.ndarray, int, int]], classes: np.ndarray, rules: MergeRules
) -> PanopticMap:
    """Assign each pixel to the first instance that covers it, then the remaining pixels to stuff.

    Args:
        instances: in descending order of scores: the segment's description, its mask (h, w) bool, and the position
            (left, top) of the mask's first pixel in the image.
        classes: (H, W) uint8.
    """
    ids = np.full(classes.shape, VOID, dtype=np.int32)
    segments: list[dict] = []
    for segment, mask, left, top in instances:
        window = ids[top : top + mask.shape[0], left : left + mask.shape[1]]
        free = mask & (window == VOID)
        area, left_over = int(mask.sum()), int(free.sum())
        if area == 0 or area - left_over > rules.overlap * area:
            continue
        segments.append(segment)
        window[free] = len(segments)
    stuff = np.where(ids == VOID, classes, 0)
    areas = np.bincount(stuff.ravel(), minlength=1)
    for label in np.flatnonzero(areas[1:] >= max(rules.stuff_area, 1)) + 1:
        segments.append({"label": int(label), "is_thing": False})
        ids[stuff == label] = len(segments)
    return PanopticMap(ids, segments)
