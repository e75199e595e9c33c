"""Smooth L1 loss (Fast R-CNN, section 2.3) with a configurable transition point."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def smooth_l1_loss(input: Tensor, target: Tensor, beta: float = 1.0 / 9, size_average: bool = True) -> Tensor:
    """Return 0.5 * d * d / beta where |d| < beta, and |d| - 0.5 * beta elsewhere; beta 0 is plain L1.

    Args:
        input, target: tensors of the same shape.
        size_average: average over all elements instead of summing.

    Returns:
        A scalar.
    """
    return F.smooth_l1_loss(input, target, reduction="mean" if size_average else "sum", beta=beta)
