"""Find batch norms after convolutions, and fold them into the convolutions' weights."""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d

NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)


def norm_pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Return pairs of names of a module's children where the second always follows the first.

    These are neighbors in an nn.Sequential, and the pairs that a class lists in `norm_after` (name of a convolution ->
    name of its norm).
    """
    if isinstance(module, nn.Sequential):
        names = list(module._modules)
        return list(zip(names, names[1:], strict=False))
    return list(getattr(module, "norm_after", {}).items())


@torch.no_grad()
def fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    """Change the convolution so that it computes norm(conv(x)) with the norm's stored statistics.

    Args:
        norm: one of NORMS. The product is computed in float64 and rounded once.

    Raises:
        ValueError: the norm has no statistics (track_running_stats=False).
    """
    if norm.running_var is None:
        raise ValueError("a batch norm without running statistics depends on its batch and cannot be folded")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    conv.weight.copy_(conv.weight.double() * scale.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
