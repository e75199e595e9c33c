"""Sigmoid focal loss (Lin et al., ICCV 2017).

Kernels: csrc/cpu/sigmoid_focal_loss.cpp, csrc/cuda/sigmoid_focal_loss.cu.

Shapes: N locations, K classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn_benchmark.native import library

LARGEST_MINUS_LOG_P = -math.log(torch.finfo(torch.float32).tiny)  # the original kernels clamp p at FLT_MIN


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, gamma: float, alpha: float, reduction: str = "none") -> Tensor:
    """Return the focal loss of every logit, computed in float32 (float64 for float64 logits).

    Args:
        logits: (N, K), any floating dtype.
        targets: (N,) integers: 0 is background, k makes column k - 1 positive, and a negative number ignores the
            location (loss 0, gradient 0). Or (N, K) floating in [0, 1], as in torchvision's sigmoid_focal_loss. No
            gradient flows into targets.
        gamma: at least 0.
        alpha: weight of positives, in [0, 1]; negatives have weight 1 - alpha.
        reduction: "none", "sum" or "mean" (over all N * K).

    Returns:
        (N, K), or a scalar, in the dtype of the logits (float32 under autocast).

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or numbers are invalid.
        RuntimeError: an integer target is above K (on the CPU; the CUDA kernel treats it as background).
    """
    _check(logits, targets, gamma, alpha, reduction)
    if reduction != "none" and logits.device.type == "cpu" and library.kernels_for(logits.device):
        reduced = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss_sum
        return reduced(logits, targets, float(gamma), float(alpha), reduction == "mean")
    if library.kernels_for(logits.device):
        loss = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss(logits, targets, float(gamma), float(alpha))
    else:
        loss = sigmoid_focal_loss_twin(logits, targets, gamma, alpha)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean()


# The forks' names of (logits, targets, gamma, alpha) -> (N, K), one per device; this function covers both.
sigmoid_focal_loss_cuda = sigmoid_focal_loss_cpu = sigmoid_focal_loss


class SigmoidFocalLoss(nn.Module):
    """The sum of `sigmoid_focal_loss` over all locations and classes, as a module."""

    def __init__(self, gamma: float, alpha: float):
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return sigmoid_focal_loss(logits, targets, self.gamma, self.alpha, reduction="sum")

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, alpha={self.alpha}"


def sigmoid_focal_loss_twin(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    """Compute the op in plain PyTorch, differentiable by autograd."""
    autocast = torch.is_autocast_enabled(logits.device.type)
    result_dtype = torch.float32 if autocast and logits.dtype != torch.float64 else logits.dtype
    x = logits if logits.dtype == torch.float64 else logits.float()
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    minus_log_p, minus_log_q = -F.logsigmoid(x), -F.logsigmoid(-x)
    if targets.dim() == 2:
        t = targets.to(x.dtype)
        miss = p * (1 - t) + q * t
        weight = alpha * t + (1 - alpha) * (1 - t)
        loss = weight * miss**gamma * (t * minus_log_p + (1 - t) * minus_log_q)
    else:
        if (targets > logits.shape[1]).any():
            worst = int(targets.max())
            raise RuntimeError(f"sigmoid_focal_loss: targets hold {worst}, the logits have {logits.shape[1]} columns")
        # The original clamps the logarithm in its derivative, too: it does not differentiate the clamp.
        clamped = minus_log_p + (minus_log_p.clamp(max=LARGEST_MINUS_LOG_P) - minus_log_p).detach()
        positive = alpha * q**gamma * clamped
        negative = (1 - alpha) * p**gamma * minus_log_q
        columns = torch.arange(1, logits.shape[1] + 1, device=logits.device)
        labels = targets[:, None]
        loss = torch.where(labels == columns, positive, negative)
        loss = torch.where(labels < 0, torch.zeros_like(loss), loss)
    return loss.to(result_dtype)


def _check(logits: Tensor, targets: Tensor, gamma: float, alpha: float, reduction: str) -> None:
    if logits.dim() != 2:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; expected (N, K)")
    if not logits.is_floating_point():
        raise TypeError(f"logits are {logits.dtype}; expected a floating dtype")
    if targets.is_floating_point():
        if targets.shape != logits.shape:
            raise ValueError(
                f"targets are {targets.dtype} of shape {tuple(targets.shape)}; expected the shape of the logits, "
                f"{tuple(logits.shape)}, or integers of shape ({logits.shape[0]},)"
            )
    elif targets.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"targets are {targets.dtype}; expected int32, int64 or a floating dtype")
    elif targets.shape != logits.shape[:1]:
        raise ValueError(f"targets have shape {tuple(targets.shape)}; expected ({len(logits)},), one per row of logits")
    if targets.device != logits.device:
        raise ValueError(f"logits are on {logits.device}, targets on {targets.device}; expected one device")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; expected a number of at least 0")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected a number from 0 to 1")
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction is {reduction!r}; expected 'none', 'sum' or 'mean'")


if library.declared():

    @torch.library.register_fake("maskrcnn_benchmark::sigmoid_focal_loss")
    def _forward_fake(logits, targets, gamma, alpha):
        return logits.new_empty(logits.shape)

    @torch.library.register_fake("maskrcnn_benchmark::sigmoid_focal_loss_backward")
    def _backward_fake(grad, logits, targets, gamma, alpha):
        return logits.new_empty(logits.shape)

    def _setup_context(ctx, inputs, output):
        logits, targets, ctx.gamma, ctx.alpha = inputs
        ctx.save_for_backward(logits, targets)

    def _backward(ctx, grad):
        backward = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss_backward
        return backward(grad, *ctx.saved_tensors, ctx.gamma, ctx.alpha), None, None, None

    @torch.library.register_fake("maskrcnn_benchmark::sigmoid_focal_loss_sum")
    def _sum_fake(logits, targets, gamma, alpha, mean):
        return logits.new_empty(())

    def _setup_sum_context(ctx, inputs, output):
        *others, ctx.mean = inputs
        _setup_context(ctx, others, output)

    def _sum_backward(ctx, grad):
        shape = ctx.saved_tensors[0].shape
        if ctx.mean:
            grad = grad / shape.numel()
        return *_backward(ctx, grad.expand(shape)), None  # the kernel detects the expanded scalar

    torch.library.register_autograd("maskrcnn_benchmark::sigmoid_focal_loss", _backward, setup_context=_setup_context)
    torch.library.register_autograd(
        "maskrcnn_benchmark::sigmoid_focal_loss_sum", _sum_backward, setup_context=_setup_sum_context
    )
    library.forbid_gradients("sigmoid_focal_loss_backward", instead="sigmoid_focal_loss_twin")
    for _name in ("sigmoid_focal_loss", "sigmoid_focal_loss_sum"):
        for _device in ("cpu", "cuda"):
            torch.library.register_autocast(f"maskrcnn_benchmark::{_name}", _device, torch.float32)
