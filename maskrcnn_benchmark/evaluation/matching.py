"""Which detections of one picture hit which objects, at one score and overlap threshold."""

from __future__ import annotations

import torch

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_iou


def count_matches(ground_truth: BoxList, detections: BoxList, iou_threshold: float = 0.5) -> int:
    """Number of objects found: detections, surest first, take the free object of their label they overlap most.

    Args:
        ground_truth: G boxes with field labels.
        detections: N boxes of the same picture size with fields labels and scores.
        iou_threshold: the least inclusive IoU that counts.
    """
    if not len(ground_truth) or not len(detections):
        return 0
    detections = detections[detections.get_field("scores").argsort(descending=True)]
    iou = boxlist_iou(detections, ground_truth)
    same_label = detections.get_field("labels")[:, None] == ground_truth.get_field("labels")[None, :]
    iou = torch.where(same_label, iou, iou.new_zeros(()))
    found = 0
    for row in range(len(detections)):
        overlap, box = iou[row].max(dim=0)
        if overlap >= iou_threshold:
            found += 1
            iou[:, box] = 0
    return found
