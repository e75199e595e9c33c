"""Label regions by the objects that they overlap, and sample regions for training.

Shapes: N images, R_i regions of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.balanced_positive_negative_sampler import BalancedPositiveNegativeSampler
from maskrcnn_benchmark.modeling.host_waits import true_indices
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.stage import single_stage
from maskrcnn_benchmark.structures.bounding_box import BoxList


def label_regions(matcher: Matcher, proposals: BoxList, target: BoxList, box_offset: float) -> tuple[BoxList, Tensor]:
    """Return the regions with the field "labels", and for each the index (R_i,) of its object, negative for none.

    Args:
        matcher: Matcher of regions and ground truth.
        proposals: R_i boxes (xyxy).
        target: ground truth with the field "labels" in 1..; it may be empty.
        box_offset: see Convention.

    Labels are (R_i,) int64, 0 for the background and -1 between the matcher's thresholds.
    """
    matches = matcher.match_boxes(target.convert("xyxy").bbox, proposals.bbox, box_offset)
    labels = matches.new_zeros(len(proposals))
    if len(target):
        labels = torch.where(matches >= 0, target.get_field("labels")[matches.clamp(min=0)].to(torch.int64), 0)
        labels = torch.where(matches == Matcher.BETWEEN_THRESHOLDS, -1, labels)
    labelled = proposals.copy_with_fields(proposals.fields())
    labelled.add_field("labels", labels)
    return labelled, matches


class RegionSampler:
    """Select the regions for training mask and keypoint heads in a model without a box head.

    Args:
        matcher: Matcher of regions and ground truth.
        sampler: BalancedPositiveNegativeSampler, of which the positives are used; None keeps all positives.
        box_offset: see Convention.

    Call it with N BoxLists of regions (xyxy) and N of ground truth. It returns N BoxLists of the selected regions with
    their fields and "labels" (R_i,) int64, the labels of their objects, all above 0.
    """

    def __init__(self, matcher: Matcher, sampler: BalancedPositiveNegativeSampler | None, box_offset: float = 1.0):
        self.matcher = matcher
        self.sampler = sampler
        self.box_offset = box_offset

    @torch.no_grad()
    def __call__(self, proposals: list[BoxList], targets: list[BoxList]) -> list[BoxList]:
        labelled = [
            label_regions(self.matcher, *pair, self.box_offset)[0] for pair in zip(proposals, targets, strict=True)
        ]
        labels = [boxes.get_field("labels") for boxes in labelled]
        positive = [each > 0 for each in labels] if self.sampler is None else self.sampler(labels)[0]
        return [boxes[indices] for boxes, indices in zip(labelled, true_indices(positive), strict=True)]


def make_region_sampler(cfg) -> RegionSampler:
    """Build the sampler for ROI heads on the detections of a dense detector."""
    node, stage = cfg.MODEL.ROI_HEADS, single_stage(cfg)
    convention = get_convention(cfg.MODEL.CONVENTION)
    sampler = None
    if convention.dense_regions_sampled:
        sampler = BalancedPositiveNegativeSampler(node.BATCH_SIZE_PER_IMAGE, node.POSITIVE_FRACTION)
    return RegionSampler(Matcher(stage.fg_iou, stage.bg_iou), sampler, convention.box_offset)
