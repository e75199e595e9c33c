"""IoU losses of boxes that share a point.

Shapes: P locations. A box is given by its distances left, top, right, bottom from a location inside it.
"""

from __future__ import annotations

import torch
from torch import nn

IOU_LOSS_TYPES = ("iou", "linear_iou", "giou")


def iou_loss(pred: torch.Tensor, target: torch.Tensor, loss_type: str = "iou") -> torch.Tensor:
    """Return the loss (P,) per location of distances pred (P, 4) and target (P, 4), both in one unit.

    "iou" is -log(IoU) (UnitBox, Yu et al. 2016), "linear_iou" 1 - IoU, "giou" 1 - GIoU (Rezatofighi et al., CVPR 2019).
    IoU is smoothed here as (intersection + 1) / (union + 1). The FCOS forks do so, and their checkpoints were trained
    with it.
    """
    pred_left, pred_top, pred_right, pred_bottom = pred.unbind(dim=1)
    target_left, target_top, target_right, target_bottom = target.unbind(dim=1)
    pred_area = (pred_left + pred_right) * (pred_top + pred_bottom)
    target_area = (target_left + target_right) * (target_top + target_bottom)

    width = torch.minimum(pred_left, target_left) + torch.minimum(pred_right, target_right)
    height = torch.minimum(pred_top, target_top) + torch.minimum(pred_bottom, target_bottom)
    intersection = width * height
    union = pred_area + target_area - intersection
    iou = (intersection + 1.0) / (union + 1.0)
    if loss_type == "iou":
        return -torch.log(iou)
    if loss_type == "linear_iou":
        return 1 - iou
    if loss_type == "giou":
        hull_width = torch.maximum(pred_left, target_left) + torch.maximum(pred_right, target_right)
        hull_height = torch.maximum(pred_top, target_top) + torch.maximum(pred_bottom, target_bottom)
        hull = hull_width * hull_height + 1e-7
        return 1 - (iou - (hull - union) / hull)
    raise ValueError(f"loss_type is {loss_type!r}; expected one of {', '.join(IOU_LOSS_TYPES)}")


class IOULoss(nn.Module):
    """Sum of `iou_loss` over the locations, with optional weights.

    Forward takes pred (P, 4), target (P, 4) and weight (P,) or None, and returns a scalar. The caller normalizes it.
    (VoVNet-FCOS's class divided by the weights itself; this is upstream's contract.)
    """

    def __init__(self, loss_type: str = "iou"):
        super().__init__()
        if loss_type not in IOU_LOSS_TYPES:
            raise ValueError(f"loss_type is {loss_type!r}; expected one of {', '.join(IOU_LOSS_TYPES)}")
        self.loss_type = loss_type

    def forward(self, pred, target, weight=None):
        losses = iou_loss(pred, target, self.loss_type)
        return losses.sum() if weight is None else (losses * weight).sum()
