"""Smooth L1 (Fast R-CNN, section 2.3) with a free turning point."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def smooth_l1_loss(input: Tensor, target: Tensor, beta: float = 1.0 / 9, size_average: bool = True) -> Tensor:
    """0.5 * d * d / beta where |d| < beta, |d| - 0.5 * beta elsewhere; beta 0 is plain L1.

    Args:
        input, target: the same shape.
        size_average: the mean over all elements; otherwise their sum.

    Returns a scalar.
    """
    return F.smooth_l1_loss(input, target, reduction="mean" if size_average else "sum", beta=beta)
