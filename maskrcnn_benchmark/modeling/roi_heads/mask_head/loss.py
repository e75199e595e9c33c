"""Targets and loss of the mask head (Mask R-CNN, section 3).

Shapes: N images, R positive regions of all images together, K classes with the background, M pixels a side of a mask.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.convention import get_convention
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.structures.bounding_box import BoxList


def project_masks_on_boxes(segmentation_masks, proposals: BoxList, discretization_size: int) -> torch.Tensor:
    """What each region sees of its mask: (R, M, M) float32 of 0 and 1, on the device of the regions.

    Args:
        segmentation_masks: SegmentationMask with one instance a region, of the same picture.
        proposals: R regions.
        discretization_size: M.
    """
    size = (discretization_size, discretization_size)
    targets = []
    for mask, (x1, y1, x2, y2) in zip(segmentation_masks, proposals.convert("xyxy").bbox.tolist(), strict=True):
        # a box of one pixel has x2 = x1: it still shows that pixel
        x2, y2 = (x2 if x2 > x1 else x1 + 1), (y2 if y2 > y1 else y1 + 1)
        targets.append(mask.crop((x1, y1, x2, y2)).resize(size).get_mask_tensor())
    if not targets:
        return proposals.bbox.new_zeros((0, *size))
    return torch.stack(targets).to(proposals.bbox.device, torch.float32)


class MaskRCNNLoss:
    """Mean binary cross entropy over the pixels of each region's own class.

    Args:
        matcher: Matcher of regions and ground truth.
        discretization_size: M, the side of the predicted masks.
        box_offset: see Convention.
    """

    def __init__(self, matcher, discretization_size, box_offset=1.0):
        self.matcher = matcher
        self.discretization_size = discretization_size
        self.box_offset = box_offset

    def __call__(self, proposals: list[BoxList], mask_logits: torch.Tensor, targets: list[BoxList]) -> torch.Tensor:
        """A scalar, attached to mask_logits even where there is no region.

        Args:
            proposals: N BoxLists, R regions together.
            mask_logits: (R, K, M, M).
            targets: N BoxLists with fields "labels" and, where they are not empty, "masks" (SegmentationMask).
        """
        labels, masks = (torch.cat(p) for p in zip(*map(self._targets, proposals, targets), strict=True))
        positive = (labels > 0).nonzero().squeeze(1)
        if len(positive) == 0:
            return mask_logits.sum() * 0
        if mask_logits.shape[-2:] != masks.shape[-2:]:
            raise ValueError(
                f"masks of {tuple(mask_logits.shape[-2:])} pixels are predicted, but MODEL.ROI_MASK_HEAD.RESOLUTION "
                f"is {self.discretization_size}; set it to the side of the predicted masks"
            )
        return F.binary_cross_entropy_with_logits(mask_logits[positive, labels[positive]].float(), masks)

    @torch.no_grad()
    def _targets(self, proposals, target):
        """Labels (R_i,) of the regions of an image, and (P_i, M, M) targets of the P_i with a label above 0."""
        if len(target) and not target.has_field("masks"):
            raise ValueError(
                f"MODEL.MASK_ON is True, but the ground truth has no masks, only {target.fields()}; set it to False "
                "or train on a data set with segmentations"
            )
        matches = self.matcher.match_boxes(target.convert("xyxy").bbox, proposals.bbox, self.box_offset)
        positive = (matches >= 0).nonzero().squeeze(1)
        labels = torch.zeros_like(matches)
        if len(positive) == 0:
            return labels, project_masks_on_boxes([], proposals[positive], self.discretization_size)
        labels[positive] = target.get_field("labels")[matches[positive]].to(torch.int64)
        masks = target.get_field("masks")[matches[positive].cpu()]
        return labels, project_masks_on_boxes(masks, proposals[positive], self.discretization_size)


def make_roi_mask_loss_evaluator(cfg) -> MaskRCNNLoss:
    node = cfg.MODEL.ROI_HEADS
    return MaskRCNNLoss(
        Matcher(node.FG_IOU_THRESHOLD, node.BG_IOU_THRESHOLD),
        cfg.MODEL.ROI_MASK_HEAD.RESOLUTION,
        get_convention(cfg.MODEL.CONVENTION).box_offset,
    )
