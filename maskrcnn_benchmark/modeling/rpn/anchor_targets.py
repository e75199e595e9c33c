"""Assign ground truth to anchors, for RPN and RetinaNet.

Shapes: N images, P anchors of all levels, G ground-truth boxes of an image.
"""

from __future__ import annotations

import torch

from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.structures.bounding_box import BoxList

BACKGROUND = 0
IGNORED = -1


class AnchorTargets:
    """Match anchors with ground truth.

    Args:
        matcher: Matcher.
        box_coder: BoxCoder.
        by_class: use the classes of the ground truth as labels instead of 1.
        box_offset: see Convention.
    """

    def __init__(self, matcher, box_coder, by_class: bool, box_offset: float = 1.0):
        self.matcher = matcher
        self.box_coder = box_coder
        self.by_class = by_class
        self.box_offset = box_offset

    def __call__(self, anchors: torch.Tensor, target: BoxList) -> tuple[torch.Tensor, torch.Tensor]:
        """Return labels (P,) int64 and box codes (P, 4) of one image.

        Labels are positive for objects, BACKGROUND, or IGNORED between the matcher's thresholds. Codes are 0 where the
        label is not positive. An image without objects is all background.

        Args:
            anchors: (P, 4).
            target: BoxList, with the field "labels" if by_class.
        """
        boxes = target.convert("xyxy").bbox.to(anchors.device)
        if len(boxes) == 0:
            labels = torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
            return labels, torch.zeros_like(anchors)
        matches = self.matcher.match_boxes(boxes, anchors, self.box_offset)
        box_of_anchor = matches.clamp(min=0)
        if self.by_class:
            labels = target.get_field("labels").to(anchors.device)[box_of_anchor]
        else:
            labels = torch.ones_like(matches)
        labels = torch.where(matches == Matcher.BELOW_LOW_THRESHOLD, BACKGROUND, labels)
        labels = torch.where(matches == Matcher.BETWEEN_THRESHOLDS, IGNORED, labels)
        codes = self.box_coder.encode(boxes[box_of_anchor], anchors)
        return labels, torch.where((labels > 0)[:, None], codes, 0.0)
