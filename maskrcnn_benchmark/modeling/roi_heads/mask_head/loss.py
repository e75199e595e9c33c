"""Compute targets and loss of the mask head (Mask R-CNN, section 3).

Shapes: N images, R positive regions of all images together, K classes with the background, M pixels a side of a mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.host_waits import send
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.mask_head.targets import PROJECTIONS, project_masks_on_boxes
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.visible_share import VISIBLE_SHARES
from maskrcnn_benchmark.modeling.roi_heads.regions import label_regions
from maskrcnn_benchmark.modeling.roi_heads.stage import Stage, single_stage
from maskrcnn_benchmark.structures.bounding_box import BoxList


class MaskTargets(NamedTuple):
    """Mask targets of R regions, P of which match an object.

    Attributes:
        masks: (P, M, M) float32 of 0 and 1.
        rows: indices (P,) of these regions.
        labels: (R,) int64 of all regions.
        shares: (P,) float64, how much of each object lies in its region; None without a MaskIoU head.
    """

    masks: Tensor
    rows: Tensor
    labels: Tensor
    shares: Tensor | None = None


class MaskRCNNLoss:
    """Mean binary cross entropy over the pixels of each region's own class.

    Args:
        matcher: Matcher of regions and ground truth.
        discretization_size: M, the side of the predicted masks.
        box_offset: see Convention.
        project: crops and resizes ground-truth masks to regions; a function of targets.py.
        visible_share: measures how much of each object lies in its region, for a MaskIoU head; a function of
            maskiou_head/visible_share.py, or None.
    """

    def __init__(
        self, matcher, discretization_size, box_offset=1.0, project=project_masks_on_boxes, visible_share=None
    ):
        self.matcher = matcher
        self.discretization_size = discretization_size
        self.box_offset = box_offset
        self.project = project
        self.visible_share = visible_share

    def __call__(self, proposals: list[BoxList], mask_logits: Tensor, targets: list[BoxList]) -> Tensor:
        """Return the loss, a scalar that depends on mask_logits even without regions.

        Args:
            proposals: N BoxLists, R regions together.
            mask_logits: (R, K, M, M).
            targets: N BoxLists with the fields "labels" and, unless they are empty, "masks" (SegmentationMask).
        """
        return self.cross_entropy(mask_logits, self.targets(proposals, targets))

    def cross_entropy(self, mask_logits: Tensor, objects: MaskTargets) -> Tensor:
        """Return the loss of mask logits (R, K, M, M), given the targets of their regions."""
        masks, rows, labels, _ = objects
        if len(masks) == 0:
            return mask_logits.sum() * 0
        if mask_logits.shape[-2:] != masks.shape[-2:]:
            raise ValueError(
                f"the predicted masks have {tuple(mask_logits.shape[-2:])} pixels, but MODEL.ROI_MASK_HEAD.RESOLUTION "
                f"is {self.discretization_size}; set it to their side"
            )
        return F.binary_cross_entropy_with_logits(mask_logits[rows, labels[rows]].float(), masks)

    @torch.no_grad()
    def targets(self, proposals: list[BoxList], targets: list[BoxList]) -> MaskTargets:
        """Match N BoxLists of regions with N of ground truth, as for `__call__`."""
        matches, labels = zip(*map(self._match, proposals, targets), strict=True)
        matches, labels = torch.cat(matches), torch.cat(labels)
        boxes = torch.cat([regions.convert("xyxy").bbox for regions in proposals])
        # Masks are cropped on the host. It waits once, for boxes and matches (integers, exact in float32) of all
        # images.
        on_host = torch.cat((boxes, matches[:, None].to(boxes.dtype)), dim=1).cpu()
        size = self.discretization_size
        masks, shares = [], []
        for regions, target, rows in zip(proposals, targets, on_host.split(list(map(len, proposals))), strict=True):
            rows = rows[rows[:, 4] >= 0]
            if len(rows):
                chosen = target.get_field("masks")[rows[:, 4].long()]
                regions = BoxList(rows[:, :4], regions.size, box_offset=regions.box_offset)
                masks.append(self.project(chosen, regions, size))
                if self.visible_share is not None:
                    shares.append(self.visible_share(chosen, regions))
        if not masks:
            return MaskTargets(boxes.new_zeros((0, size, size)), matches.new_zeros(0), labels)
        masks = torch.cat(masks)
        rows = torch.nonzero_static(matches >= 0, size=len(masks)).squeeze(1)
        of_objects = send(torch.cat(shares), boxes.device) if shares else None
        return MaskTargets(send(masks, boxes.device), rows, labels, of_objects)

    def _match(self, proposals, target):
        """Return for each region of an image the index of its object, negative for none, and its label, (R_i,) each."""
        if len(target) and not target.has_field("masks"):
            raise ValueError(
                f"MODEL.MASK_ON is True, but the ground truth has no masks, only {target.fields()}; set it to False "
                "or train on a dataset with segmentations"
            )
        labelled, matches = label_regions(self.matcher, proposals, target, self.box_offset)
        return matches, labelled.get_field("labels")


def make_roi_mask_loss_evaluator(cfg, stage: Stage | None = None) -> MaskRCNNLoss:
    stage = stage or single_stage(cfg)
    convention = get_convention(cfg.MODEL.CONVENTION)
    return MaskRCNNLoss(
        Matcher(stage.fg_iou, stage.bg_iou),
        cfg.MODEL.ROI_MASK_HEAD.RESOLUTION,
        convention.box_offset,
        PROJECTIONS[convention.mask_projection],
        VISIBLE_SHARES[convention.maskiou_share] if cfg.MODEL.MASKIOU_ON else None,
    )
