"""Compute target and loss of the MaskIoU head (Mask Scoring R-CNN, section 3.3).

Shapes: R regions, P of them with an object, K classes with the background, M pixels a side of a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import MaskTargets


@torch.no_grad()
def maskiou_targets(predicted: Tensor, masks: Tensor, shares: Tensor) -> Tensor:
    """Return the IoU (P,) float64 of predicted masks and whole objects.

    Args:
        predicted: (P, M, M) bool.
        masks: (P, M, M) of 0 and 1, the objects inside the regions.
        shares: (P,) float64, how much of each object that is, see visible_share.py.

    An object without a pixel in its region has IoU 0.
    """
    common = (predicted & (masks > 0)).sum(dim=(1, 2)).double()
    predicted_area, visible_area = predicted.sum(dim=(1, 2)).double(), masks.sum(dim=(1, 2)).double()
    return common / (predicted_area + visible_area / shares - common).clamp(min=1)


class MaskIoULoss:
    """Half the squared error of the predicted IoU, averaged over the regions whose IoU is above 0.

    Args:
        weight: factor of the loss.
    """

    def __init__(self, weight: float = 1.0):
        self.weight = weight

    def __call__(self, ious: Tensor, mask_logits: Tensor, objects: MaskTargets) -> Tensor:
        """Return the loss, a scalar that depends on ious even without regions.

        Args:
            ious: (R, K) predicted IoUs.
            mask_logits: (R, K, M, M); no gradient flows through the target.
            objects: targets of the mask loss, with `shares`.
        """
        if len(objects.masks) == 0:
            return ious.sum() * 0
        labels = objects.labels[objects.rows]
        target = maskiou_targets(mask_logits[objects.rows, labels] > 0, objects.masks, objects.shares).to(ious.dtype)
        counted = target > 0
        squares = (ious[objects.rows, labels] - target).square() * counted
        return self.weight * 0.5 * squares.sum() / counted.sum().clamp(min=1)
