"""Compute the losses of RPN (Faster R-CNN, equation 1).

Shapes: N images, L levels, A anchors of a cell, P anchors of all levels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.smooth_l1_loss import smooth_l1_loss
from maskrcnn_benchmark.modeling.balanced_positive_negative_sampler import BalancedPositiveNegativeSampler
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.rpn.anchor_targets import IGNORED, AnchorTargets
from maskrcnn_benchmark.modeling.rpn.flatten import flatten_levels
from maskrcnn_benchmark.utils.comm import all_reduce_sum, get_world_size

# Every coordinate of a placeholder anchor that overlaps nothing.
NOWHERE = -1e6
NORMALIZERS = ("sampled", "sampled_or_one", "sample_size")


class RPNLoss:
    """Cross entropy on objectness and smooth L1 on boxes, over a random sample of anchors.

    Args:
        assign: AnchorTargets.
        sampler: BalancedPositiveNegativeSampler.
        beta: point where smooth L1 turns from quadratic to linear.
        normalizer: "sampled", "sampled_or_one" or "sample_size", see Convention.rpn_loss_normalizer.
        outer_anchors_match: see Convention.

    Both sums are divided by a count over all images of all processes: the sampled anchors, positive and negative, or
    the sample size. Each process multiplies its sums by the number of processes. Averaged gradients then equal those
    of one process on the whole batch. (The original implementations divide by each process's own count. The results
    are equal if every image fills its sample.)

    Raises:
        ValueError: the normalizer is unknown.
    """

    def __init__(
        self,
        assign,
        sampler,
        beta: float = 1.0 / 9,
        normalizer: str = "sampled",
        outer_anchors_match: bool = True,
    ):
        if normalizer not in NORMALIZERS:
            known = ", ".join(map(repr, NORMALIZERS))
            raise ValueError(f"the normalizer of RPN's losses is {normalizer!r}; expected one of {known}")
        self.assign = assign
        self.sampler = sampler
        self.beta = beta
        self.normalizer = normalizer
        self.outer_anchors_match = outer_anchors_match

    def __call__(self, anchors, visible, logits, codes, targets) -> dict[str, torch.Tensor]:
        """Return the scalars loss_objectness and loss_rpn_box_reg, which depend on every output even without a sample.

        Args:
            anchors: (P, 4).
            visible: N masks (P,); other anchors are not trained.
            logits, codes: L maps (N, A, H_l, W_l) and (N, 4 A, H_l, W_l).
            targets: N BoxLists.
        """
        labels, target_codes = [], []
        for mask, target in zip(visible, targets, strict=True):
            matched = anchors if self.outer_anchors_match else torch.where(mask[:, None], anchors, NOWHERE)
            image_labels, image_codes = self.assign(matched, target)
            labels.append(torch.where(mask, image_labels, IGNORED))
            target_codes.append(image_codes)
        positive, negative = (torch.stack(masks) for masks in self.sampler(labels))
        sampled = positive | negative
        target_codes = torch.stack(target_codes)

        # The losses run on all anchors, with weight 0 for those not sampled. Selecting the sample would make the host
        # wait for its size.
        objectness_sum = F.binary_cross_entropy_with_logits(
            flatten_levels(logits, 1).squeeze(2), positive.float(), weight=sampled.float(), reduction="sum"
        )
        codes = torch.where(positive[:, :, None], flatten_levels(codes, 4), target_codes)
        box_sum = smooth_l1_loss(codes, target_codes, self.beta, size_average=False)
        counts = torch.stack((positive.sum(dim=1), negative.sum(dim=1))).float()
        if self.normalizer == "sampled_or_one":
            counts = counts.clamp(min=1)
        count = counts.sum()
        if self.normalizer == "sample_size":
            count = torch.full_like(count, len(targets) * self.sampler.batch_size_per_image)
        factor = get_world_size() / all_reduce_sum(count).clamp(min=1)
        return {"loss_objectness": objectness_sum * factor, "loss_rpn_box_reg": box_sum * factor}


def make_rpn_loss_evaluator(cfg, box_coder) -> RPNLoss:
    rpn = cfg.MODEL.RPN
    convention = get_convention(cfg.MODEL.CONVENTION)
    matcher = Matcher(
        rpn.FG_IOU_THRESHOLD,
        rpn.BG_IOU_THRESHOLD,
        allow_low_quality_matches=True,
        best_matches_kept=convention.best_matches_kept,
    )
    return RPNLoss(
        AnchorTargets(matcher, box_coder, by_class=False, box_offset=convention.box_offset),
        BalancedPositiveNegativeSampler(rpn.BATCH_SIZE_PER_IMAGE, rpn.POSITIVE_FRACTION),
        convention.rpn_beta,
        convention.rpn_loss_normalizer,
        convention.outer_anchors_match,
    )
