"""Compute the losses of FCOS (sections 3.1 and 3.3 of the paper).

Shapes: N images, L levels, K foreground classes, P locations of all levels together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.iou_loss import iou_loss
from maskrcnn_benchmark.layers.sigmoid_focal_loss import sigmoid_focal_loss
from maskrcnn_benchmark.modeling.rpn.fcos.targets import FCOSTargets
from maskrcnn_benchmark.modeling.rpn.flatten import flatten_levels
from maskrcnn_benchmark.utils.comm import all_reduce_sum, get_world_size

LOSS_NORMALIZERS = ("positives_and_images", "positives")


def centerness_of(distances: torch.Tensor) -> torch.Tensor:
    """Return the centerness (...,) of positive distances (..., 4): 1 at the center, 0 at the border (equation 3)."""
    left, top, right, bottom = distances.unbind(dim=-1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return torch.sqrt(horizontal * vertical)


class FCOSLoss:
    """Focal loss on classes, IoU loss on boxes weighted by centerness, cross entropy on centerness.

    Args:
        assign: FCOSTargets, or a callable like it.
        focal_gamma, focal_alpha: parameters of the focal loss (Lin et al., ICCV 2017).
        iou_loss_type: "iou", "linear_iou" or "giou".
        strides: one per level; the IoU loss measures distances in strides. None measures them in pixels.
        normalizer: divisor of the focal sum: "positives_and_images" (VoVNet-FCOS: positive locations + images) or
            "positives" (upstream: positive locations, at least 1).

    Normalizers are summed over all processes, and each process multiplies its sums by the number of processes. Averaged
    gradients then equal those of one process on the whole batch.
    """

    def __init__(
        self,
        assign,
        focal_gamma=2.0,
        focal_alpha=0.25,
        iou_loss_type="iou",
        normalizer="positives_and_images",
        strides=None,
    ):
        if normalizer not in LOSS_NORMALIZERS:
            raise ValueError(f"MODEL.FCOS.LOSS_NORMALIZER is {normalizer!r}; expected {' or '.join(LOSS_NORMALIZERS)}")
        self.assign = assign
        self.focal_gamma = focal_gamma
        self.focal_alpha = focal_alpha
        self.iou_loss_type = iou_loss_type
        self.count_images = normalizer == "positives_and_images"
        self.strides = strides

    def __call__(self, locations, logits, distances, centerness, targets) -> dict[str, torch.Tensor]:
        """Return three scalar losses, which depend on every output even without positive locations.

        Args:
            locations: L tensors (P_l, 2).
            logits, distances, centerness: L maps (N, K, H_l, W_l), (N, 4, H_l, W_l) in pixels of the network input,
                (N, 1, H_l, W_l).
            targets: N BoxLists with the field "labels" in 1..K.
        """
        labels, target_distances = self.assign(locations, targets)
        if self.strides is not None:
            distances = [level / stride for level, stride in zip(distances, self.strides, strict=True)]
        logits = flatten_levels(logits, logits[0].shape[1]).flatten(0, 1)
        distances = flatten_levels(distances, 4).flatten(0, 1)
        centerness = flatten_levels(centerness, 1).flatten()
        labels, target_distances = labels.flatten(), target_distances.flatten(0, 1)

        # The losses run on all locations, with weight 0 for negatives. Selecting the positives would make the host
        # wait for their number.
        positive = labels > 0
        target_distances = torch.where(positive[:, None], target_distances, 1.0)
        box_pred = torch.where(positive[:, None], distances, 1.0)
        target_centerness = torch.where(positive, centerness_of(target_distances), 0.0)

        focal_sum = sigmoid_focal_loss(logits, labels, self.focal_gamma, self.focal_alpha, reduction="sum")
        box_sum = (iou_loss(box_pred, target_distances, self.iou_loss_type) * target_centerness).sum()
        centerness_sum = F.binary_cross_entropy_with_logits(
            centerness, target_centerness, weight=positive.to(centerness.dtype), reduction="sum"
        )

        num_images = target_centerness.new_full((), len(targets))
        totals = all_reduce_sum(torch.stack((positive.sum(), target_centerness.sum(), num_images)))
        num_positives, sum_centerness, num_images = totals.unbind()
        world_size = get_world_size()
        class_normalizer = num_positives + num_images if self.count_images else num_positives.clamp(min=1)
        return {
            "loss_cls": focal_sum * (world_size / class_normalizer),
            # Without positives the sum is already 0; the bound only avoids 0 / 0.
            "loss_reg": box_sum * (world_size / sum_centerness.clamp(min=torch.finfo(torch.float32).tiny)),
            "loss_centerness": centerness_sum * (world_size / num_positives.clamp(min=1)),
        }


FCOSLossComputation = FCOSLoss  # the forks' name


def make_fcos_loss_evaluator(cfg) -> FCOSLoss:
    fcos = cfg.MODEL.FCOS
    assign = FCOSTargets(
        strides=fcos.FPN_STRIDES,
        size_bounds=fcos.SIZES_OF_INTEREST,
        center_sampling_radius=fcos.CENTER_SAMPLING_RADIUS,
        normalize_distances=fcos.NORM_REG_TARGETS,
        box_offset=get_convention(cfg.MODEL.CONVENTION).box_offset,
    )
    return FCOSLoss(
        assign,
        fcos.LOSS_GAMMA,
        fcos.LOSS_ALPHA,
        fcos.IOU_LOSS_TYPE,
        fcos.LOSS_NORMALIZER,
        strides=fcos.FPN_STRIDES if fcos.NORM_REG_TARGETS else None,
    )
