"""A copy of a model that computes the same detections in fewer steps."""

from __future__ import annotations

import copy
import logging
from itertools import chain

import torch
from torch import nn

from maskrcnn_benchmark.layers.hooks import is_watched
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.layers.winograd import WinogradConv2d, suits

logger = logging.getLogger(__name__)

NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)


def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32, winograd: bool = True) -> nn.Module:
    """A copy of `model` in evaluation mode, with each batch norm folded into the convolution before it.

    Folded is what certainly follows each other: neighbours in an nn.Sequential, and the pairs that a module class
    names in `norm_after` (name of a convolution -> name of its norm). Everything else stays as it is, and so do layers
    with hooks. Weights that are not finite are named in a warning.

    Args:
        dtype: what torch.autocast will compute in. Other than float32, weights of convolutions and linear layers are
            stored in it, so that autocast need not convert them for every picture; the copy runs under autocast only.
        winograd: on a CPU, compute 3x3 convolutions by layers/winograd.py where that is faster. Results change by
            float32 rounding; their weights take 4 times the memory.

    Returns the copy, which is of no use for training: its state_dict has other keys.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    _warn_of_nonfinite_weights(model)
    for module in model.modules():
        for conv, norm in _pairs(module):
            pair = getattr(module, conv), getattr(module, norm)
            if isinstance(pair[0], nn.Conv2d) and isinstance(pair[1], NORMS) and not any(map(is_watched, pair)):
                fold(*pair)
                setattr(module, norm, nn.Identity())
    if winograd:
        _use_winograd(model, dtype)
    if dtype != torch.float32:
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                for parameter in module.parameters(recurse=False):  # not of a norm inside
                    parameter.data = parameter.data.to(dtype)
    return model


def _warn_of_nonfinite_weights(model: nn.Module) -> None:
    # oneDNN's ReLU makes 0 of a NaN: a model that diverged would look as if it found nothing
    named = chain(model.named_parameters(), model.named_buffers())
    found = [name for name, weight in named if weight.device.type != "meta" and not weight.isfinite().all()]
    if found:
        some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        logger.warning(f"{len(found)} weights have values that are not finite ({some}): detections will mean nothing")


def _use_winograd(model: nn.Module, dtype: torch.dtype) -> None:
    made: dict[nn.Module, nn.Module] = {}  # one for each convolution, however often it is used
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child in made or suits(child, dtype):
                made[child] = module._modules[name] = made.get(child) or WinogradConv2d(child)


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    if isinstance(module, nn.Sequential):
        names = list(module._modules)
        return list(zip(names, names[1:], strict=False))
    return list(getattr(module, "norm_after", {}).items())


@torch.no_grad()
def fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    """Changes the convolution into one that computes norm(conv(x)) with the norm's stored statistics.

    Args:
        norm: one of NORMS. The product is made in float64 and rounded once.

    Raises:
        ValueError: the norm keeps no statistics (track_running_stats=False).
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
