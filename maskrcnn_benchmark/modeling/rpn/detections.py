"""The end of every dense head: from the candidates of an image to its detections.

Shapes: C candidates, D detections.
"""

from __future__ import annotations

import torch

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxes import clip_boxes


def best_detections(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    labels: torch.Tensor,
    image_size,
    nms_thresh: float,
    detections_per_img: int,
    box_offset: float,
) -> BoxList:
    """Clips the candidates, suppresses them class by class and keeps the best.

    Args:
        boxes, scores, labels: (C, 4) in pixels of the network input, (C,) and (C,) int64.
        image_size: (height, width) of the image before padding.
        nms_thresh: a box is suppressed by a better one of its class at IoU above this.
        detections_per_img: detections kept; all that tie with the last one stay. 0 keeps all.
        box_offset: see Convention.

    Returns a BoxList, best first, with fields "labels" (D,) and "scores" (D,).
    """
    height, width = (int(side) for side in image_size)
    boxes = clip_boxes(boxes, (width, height), box_offset)
    keep = batched_nms(boxes, scores, labels, nms_thresh, inclusive=box_offset == 1)
    if 0 < detections_per_img < len(keep):
        last_score = scores[keep[detections_per_img - 1]]
        keep = keep[scores[keep] >= last_score]
    result = BoxList(boxes[keep], (width, height), box_offset=box_offset)
    result.add_field("labels", labels[keep])
    result.add_field("scores", scores[keep])
    return result
