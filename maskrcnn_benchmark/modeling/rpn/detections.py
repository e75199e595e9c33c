"""From the candidates of a one-stage head to detections.

Shapes: N images, L levels, C candidates, D detections.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxes import clip_boxes


def join_levels(
    levels: Sequence[Sequence[tuple[Tensor, Tensor, Tensor]]],
    image_sizes: Sequence[tuple[int, int]],
    box_offset: float,
    clips: bool = True,
) -> list[BoxList]:
    """Join the candidates of all levels into N BoxLists with the fields "labels" (C,) and "scores" (C,).

    Args:
        levels: L lists of N triples: boxes (c, 4) in pixels of the network input, scores (c,), labels (c,) int64.
        image_sizes: N pairs (height, width) of the images before padding.
        box_offset: see Convention.
        clips: clip the boxes to their images.
    """
    candidates = []
    for i, (height, width) in enumerate(image_sizes):
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*(level[i] for level in levels), strict=True))
        size = (int(width), int(height))
        if clips:
            boxes = clip_boxes(boxes, size, box_offset)
        joined = BoxList(boxes, size, box_offset=box_offset)
        joined.add_field("labels", labels)
        joined.add_field("scores", scores)
        candidates.append(joined)
    return candidates


def best_detections(
    candidates: BoxList, nms_thresh: float, detections_per_img: int, best_first: bool = True
) -> BoxList:
    """Apply NMS to an image's candidates by class, and return the best D boxes with their fields.

    Args:
        candidates: C boxes (xyxy) with the fields "labels" and "scores".
        nms_thresh: a box is suppressed by a better one of its class at an IoU above this; 0 or less disables NMS.
        detections_per_img: detections kept, and all that tie with the last one. 0 or less keeps all.
        best_first: sort them by score; otherwise they keep the order of the candidates.
    """
    scores = candidates.get_field("scores")
    inclusive = candidates.box_offset == 1
    threshold = nms_thresh if nms_thresh > 0 else math.inf
    keep = batched_nms(candidates.bbox, scores, candidates.get_field("labels"), threshold, inclusive=inclusive)
    if 0 < detections_per_img < len(keep):
        last_score = scores[keep[detections_per_img - 1]]
        keep = keep[scores[keep] >= last_score]
    return candidates[keep if best_first else keep.sort().values]
