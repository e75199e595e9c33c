"""Compute the losses of RetinaNet (sections 3 and 4.1).

Shapes: N images, L levels, A anchors of a cell, P anchors of all levels, K foreground classes.
"""

from __future__ import annotations

import torch

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.sigmoid_focal_loss import sigmoid_focal_loss
from maskrcnn_benchmark.layers.smooth_l1_loss import smooth_l1_loss
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.rpn.anchor_targets import AnchorTargets
from maskrcnn_benchmark.modeling.rpn.flatten import flatten_levels
from maskrcnn_benchmark.utils.comm import all_reduce_sum, get_world_size


class RetinaNetLoss:
    """Focal loss on classes, smooth L1 on boxes.

    Args:
        assign: AnchorTargets by class.
        num_classes: K.
        focal_gamma, focal_alpha: parameters of the focal loss.
        beta: point where smooth L1 turns from quadratic to linear.
        regression_weight: divisor of the box loss.

    The focal sum is divided by positive anchors + images, the box sum by positive anchors, both of all processes. Each
    process multiplies its sums by the number of processes. Averaged gradients then equal those of one process on the
    whole batch. (The forks divide by each process's own numbers.)
    """

    def __init__(
        self, assign, num_classes: int, focal_gamma=2.0, focal_alpha=0.25, beta=0.11, regression_weight: float = 4.0
    ):
        self.assign = assign
        self.num_classes = num_classes
        self.focal_gamma = focal_gamma
        self.focal_alpha = focal_alpha
        self.beta = beta
        self.regression_weight = regression_weight

    def __call__(self, anchors, logits, codes, targets) -> dict[str, torch.Tensor]:
        """Return the scalars loss_retina_cls and loss_retina_reg, which depend on every output even without positives.

        Args:
            anchors: L tensors (P_l, 4).
            logits, codes: L maps (N, A K, H_l, W_l) and (N, 4 A, H_l, W_l).
            targets: N BoxLists with the field "labels" in 1..K.
        """
        joined = torch.cat(anchors)
        labels, target_codes = zip(*(self.assign(joined, target) for target in targets), strict=True)
        labels, target_codes = torch.cat(labels), torch.cat(target_codes)
        logits = flatten_levels(logits, self.num_classes).flatten(0, 1)
        codes = flatten_levels(codes, 4).flatten(0, 1)

        positive = labels > 0
        focal_sum = sigmoid_focal_loss(logits, labels, self.focal_gamma, self.focal_alpha, reduction="sum")
        # Anchors that are not positive get weight 0. Selecting the positives would make the host wait for their number.
        codes = torch.where(positive[:, None], codes, target_codes)
        box_sum = smooth_l1_loss(codes, target_codes, self.beta, size_average=False)

        num_positives = positive.sum(dtype=torch.float32)
        totals = all_reduce_sum(torch.stack((num_positives, torch.full_like(num_positives, len(targets)))))
        num_positives, num_images = totals.unbind()
        world_size = get_world_size()
        return {
            "loss_retina_cls": focal_sum * (world_size / (num_positives + num_images)),
            "loss_retina_reg": box_sum * (world_size / (num_positives * self.regression_weight).clamp(min=1)),
        }


def make_retinanet_loss_evaluator(cfg, box_coder) -> RetinaNetLoss:
    retinanet = cfg.MODEL.RETINANET
    matcher = Matcher(retinanet.FG_IOU_THRESHOLD, retinanet.BG_IOU_THRESHOLD, allow_low_quality_matches=True)
    box_offset = get_convention(cfg.MODEL.CONVENTION).box_offset
    return RetinaNetLoss(
        AnchorTargets(matcher, box_coder, by_class=True, box_offset=box_offset),
        retinanet.NUM_CLASSES - 1,
        retinanet.LOSS_GAMMA,
        retinanet.LOSS_ALPHA,
        retinanet.BBOX_REG_BETA,
        retinanet.BBOX_REG_WEIGHT,
    )
