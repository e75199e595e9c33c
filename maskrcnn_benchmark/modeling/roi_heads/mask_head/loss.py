"""Compute targets and loss of the mask head (Mask R-CNN, section 3).

Shapes: N images, R positive regions of all images together, K classes with the background, M pixels a side of a mask.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.host_waits import send
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.mask_head.targets import PROJECTIONS, project_masks_on_boxes
from maskrcnn_benchmark.modeling.roi_heads.stage import Stage, single_stage
from maskrcnn_benchmark.structures.bounding_box import BoxList


class MaskRCNNLoss:
    """Mean binary cross entropy over the pixels of each region's own class.

    Args:
        matcher: Matcher of regions and ground truth.
        discretization_size: M, the side of the predicted masks.
        box_offset: see Convention.
        project: crops and resizes ground-truth masks to regions; a function of targets.py.
    """

    def __init__(self, matcher, discretization_size, box_offset=1.0, project=project_masks_on_boxes):
        self.matcher = matcher
        self.discretization_size = discretization_size
        self.box_offset = box_offset
        self.project = project

    def __call__(self, proposals: list[BoxList], mask_logits: torch.Tensor, targets: list[BoxList]) -> torch.Tensor:
        """Return the loss, a scalar that depends on mask_logits even without regions.

        Args:
            proposals: N BoxLists, R regions together.
            mask_logits: (R, K, M, M).
            targets: N BoxLists with the fields "labels" and, unless they are empty, "masks" (SegmentationMask).
        """
        masks, rows, labels = self._targets(proposals, targets)
        if len(masks) == 0:
            return mask_logits.sum() * 0
        if mask_logits.shape[-2:] != masks.shape[-2:]:
            raise ValueError(
                f"the predicted masks have {tuple(mask_logits.shape[-2:])} pixels, but MODEL.ROI_MASK_HEAD.RESOLUTION "
                f"is {self.discretization_size}; set it to their side"
            )
        return F.binary_cross_entropy_with_logits(mask_logits[rows, labels[rows]].float(), masks)

    @torch.no_grad()
    def _targets(self, proposals, targets):
        """Return targets (P, M, M) of the P regions with an object, their indices (P,), and labels (R,) of all."""
        matches, labels = zip(*map(self._match, proposals, targets), strict=True)
        matches, labels = torch.cat(matches), torch.cat(labels)
        boxes = torch.cat([regions.convert("xyxy").bbox for regions in proposals])
        # Masks are cropped on the host. It waits once, for boxes and matches (integers, exact in float32) of all
        # images.
        on_host = torch.cat((boxes, matches[:, None].to(boxes.dtype)), dim=1).cpu()
        masks = []
        for regions, target, rows in zip(proposals, targets, on_host.split(list(map(len, proposals))), strict=True):
            rows = rows[rows[:, 4] >= 0]
            if len(rows):
                chosen = target.get_field("masks")[rows[:, 4].long()]
                regions = BoxList(rows[:, :4], regions.size, box_offset=regions.box_offset)
                masks.append(self.project(chosen, regions, self.discretization_size))
        if not masks:
            return boxes.new_zeros((0,)), None, labels
        masks = torch.cat(masks)
        rows = torch.nonzero_static(matches >= 0, size=len(masks)).squeeze(1)
        return send(masks, boxes.device), rows, labels

    def _match(self, proposals, target):
        """Return for each region of an image the index of its object, negative for none, and its label, (R_i,) each."""
        if len(target) and not target.has_field("masks"):
            raise ValueError(
                f"MODEL.MASK_ON is True, but the ground truth has no masks, only {target.fields()}; set it to False "
                "or train on a dataset with segmentations"
            )
        matches = self.matcher.match_boxes(target.convert("xyxy").bbox, proposals.bbox, self.box_offset)
        if len(target) == 0:
            return matches, torch.zeros_like(matches)
        return matches, target.get_field("labels")[matches.clamp(min=0)].to(torch.int64)


def make_roi_mask_loss_evaluator(cfg, stage: Stage | None = None) -> MaskRCNNLoss:
    stage = stage or single_stage(cfg)
    convention = get_convention(cfg.MODEL.CONVENTION)
    return MaskRCNNLoss(
        Matcher(stage.fg_iou, stage.bg_iou),
        cfg.MODEL.ROI_MASK_HEAD.RESOLUTION,
        convention.box_offset,
        PROJECTIONS[convention.mask_projection],
    )
