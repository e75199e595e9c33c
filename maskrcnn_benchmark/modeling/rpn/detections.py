"""Select detections among the candidates of a one-stage head.

Shapes: N images, L levels, C candidates, D detections.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.modeling.host_waits import true_indices
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
    candidates: Sequence[BoxList], nms_thresh: float, detections_per_img: int, best_first: bool = True
) -> list[BoxList]:
    """Apply NMS to each image's candidates by class, and return the best D boxes of each image with their fields.

    Args:
        candidates: N BoxLists of C boxes (xyxy) with the fields "labels" and "scores".
        nms_thresh: a box is suppressed by a better one of its class at an IoU above this; 0 or less disables NMS.
        detections_per_img: detections kept, and all that tie with the last one. 0 or less keeps all.
        best_first: sort them by score; otherwise they keep the order of the candidates.
    """
    threshold = nms_thresh if nms_thresh > 0 else math.inf
    kept = []
    for boxes in candidates:
        scores, labels = boxes.get_field("scores"), boxes.get_field("labels")
        kept.append(batched_nms(boxes.bbox, scores, labels, threshold, inclusive=boxes.box_offset == 1))
    if detections_per_img > 0:
        kept = _cut(kept, [boxes.get_field("scores") for boxes in candidates], detections_per_img)
    return [
        boxes[keep if best_first else keep.sort().values] for boxes, keep in zip(candidates, kept, strict=True)
    ]


def _cut(kept: list[Tensor], scores: list[Tensor], most: int) -> list[Tensor]:
    """Shorten N lists of indices, best first, to the first `most` and those that tie with the last of these."""
    longer = [i for i, keep in enumerate(kept) if len(keep) > most]
    ranked = [scores[i][kept[i]] for i in longer]
    remaining = true_indices([of_image >= of_image[most - 1] for of_image in ranked])
    for i, indices in zip(longer, remaining, strict=True):
        kept[i] = kept[i][indices]
    return kept
