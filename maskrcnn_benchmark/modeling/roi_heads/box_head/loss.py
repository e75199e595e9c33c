"""Compute targets and losses of the box head (Fast R-CNN, section 2.3).

Shapes: N images, R regions of all images together, R_i of one, G ground-truth boxes of an image, K classes with the
background.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.smooth_l1_loss import smooth_l1_loss
from maskrcnn_benchmark.modeling.balanced_positive_negative_sampler import BalancedPositiveNegativeSampler
from maskrcnn_benchmark.modeling.box_coder import make_box_coder
from maskrcnn_benchmark.modeling.host_waits import true_indices
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.regions import label_regions
from maskrcnn_benchmark.modeling.roi_heads.stage import Stage, single_stage
from maskrcnn_benchmark.structures.bounding_box import BoxList


class FastRCNNLoss:
    """Sample regions for training, and compare their predictions with the ground truth.

    Args:
        matcher: Matcher of proposals and ground truth.
        sampler: BalancedPositiveNegativeSampler.
        box_coder: BoxCoder.
        class_agnostic: all classes share one box code.
        box_offset: see Convention.
        beta: point where smooth L1 turns from quadratic to linear.
    """

    def __init__(self, matcher, sampler, box_coder, class_agnostic=False, box_offset=1.0, beta=1.0):
        self.matcher = matcher
        self.sampler = sampler
        self.box_coder = box_coder
        self.class_agnostic = class_agnostic
        self.box_offset = box_offset
        self.beta = beta

    @torch.no_grad()
    def subsample(self, proposals: list[BoxList], targets: list[BoxList]) -> list[BoxList]:
        """Sample regions of each image; they keep the order of the proposals.

        Args:
            proposals: N BoxLists (xyxy).
            targets: N BoxLists with the field "labels" in 1..K-1; they may be empty.

        Returns:
            N BoxLists with the fields of the proposals, "labels" (R_i,) int64, 0 for the background, and
            "regression_targets" (R_i, 4), codes of BoxCoder that are undefined for the background.
        """
        labelled = [self._label(*pair) for pair in zip(proposals, targets, strict=True)]
        positive, negative = self.sampler([boxes.get_field("labels") for boxes in labelled])
        drawn = [pos | neg for pos, neg in zip(positive, negative, strict=True)]
        return [boxes[indices] for boxes, indices in zip(labelled, true_indices(drawn), strict=True)]

    def _label(self, proposals, target):
        labelled, matches = label_regions(self.matcher, proposals, target, self.box_offset)
        codes = torch.zeros_like(proposals.bbox)
        if len(target):
            truth = target.convert("xyxy").bbox
            codes = self.box_coder.encode(truth[matches.clamp(min=0)], proposals.bbox)
        labelled.add_field("regression_targets", codes)
        return labelled

    def __call__(self, class_logits, box_regression, proposals) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the classification loss and the box loss; both depend on both inputs, whatever the regions are.

        Args:
            class_logits: (R, K).
            box_regression: (R, 4 K), or (R, 8) if classes share a code.
            proposals: the N BoxLists of `subsample`.
        """
        labels = torch.cat([boxes.get_field("labels") for boxes in proposals])
        codes = torch.cat([boxes.get_field("regression_targets") for boxes in proposals])
        class_sum = F.cross_entropy(class_logits.float(), labels, reduction="sum")

        # The box loss runs on all regions, with weight 0 for the background. Selecting the positives would make the
        # host wait for their number.
        column = labels.clamp(max=1) if self.class_agnostic else labels
        per_class = box_regression.float().reshape(len(labels), box_regression.shape[1] // 4, 4)
        predicted = per_class.gather(1, column[:, None, None].expand(-1, 1, 4)).squeeze(1)
        positive = (labels > 0)[:, None]
        box_sum = smooth_l1_loss(
            torch.where(positive, predicted, 0.0), torch.where(positive, codes, 0.0), self.beta, size_average=False
        )
        count = max(len(labels), 1)
        return class_sum / count, box_sum / count


def make_roi_box_loss_evaluator(cfg, stage: Stage | None = None) -> FastRCNNLoss:
    stage = stage or single_stage(cfg)
    node = cfg.MODEL.ROI_HEADS
    convention = get_convention(cfg.MODEL.CONVENTION)
    return FastRCNNLoss(
        Matcher(stage.fg_iou, stage.bg_iou, best_matches_kept=convention.best_matches_kept),
        BalancedPositiveNegativeSampler(node.BATCH_SIZE_PER_IMAGE, node.POSITIVE_FRACTION),
        make_box_coder(cfg, stage.box_weights),
        class_agnostic=stage.class_agnostic,
        box_offset=convention.box_offset,
        beta=convention.box_beta,
    )
