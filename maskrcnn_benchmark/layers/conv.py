"""Convolutions and linear layers together with what follows them: norm, sum and ReLU in as few passes as possible.

Written out, each of them reads and writes a whole map: of an R-50-FPN's float32 time on a CPU these passes are a
quarter. Here they join the convolution where that is possible, and run one after the other everywhere else:

- without gradients, on the CPU, oneDNN adds and rectifies while it stores what it has computed, and so does
  layers/winograd.py;
- in training, a FrozenBatchNorm2d becomes part of the weights.

oneDNN's ReLU makes 0 of a NaN, where torch's keeps it. So `for_inference` looks for weights that are not finite.

Shapes: N images, C channels in, D channels out, R rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from maskrcnn_benchmark.layers.hooks import any_watched, is_watched
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.layers.winograd import WinogradConv2d, suits, winograd_conv2d

# oneDNN's bfloat16 gradient of 3x3 weights, 256 channels of 14 x 14, one AVX-512 core: 14 ms for 16 maps, but 118 for
# 15 and 61 for 8, for which it has no good kernel. Small maps are filled up with zeros to a multiple of this.
FULL_BATCH = 16
SMALL_MAP = 32 * 32


def conv_norm_act(
    x: Tensor,
    conv: nn.Module,
    norm: nn.Module | None = None,
    *,
    relu: bool = False,
    plus: Tensor | None = None,
    overwrite_plus: bool = False,
) -> Tensor:
    """relu(norm(conv(x)) + plus), each part but the convolution where it is asked for: (N, D, H, W).

    Args:
        x: (N, C, H, W).
        conv: any module. Other than a plain nn.Conv2d without hooks, it is called as it is.
        norm: likewise; None and nn.Identity change nothing. What hooks are shown is not changed afterwards.
        plus: (N, D, H, W).
        overwrite_plus: the caller needs `plus` no more, so that the result may take its memory.
    """
    identity = norm is None or type(norm) is nn.Identity
    if isinstance(conv, WinogradConv2d) and identity and plus is None and not is_watched(conv):
        return conv(x, relu=relu)
    if _is_plain(conv, nn.Conv2d):
        if identity and _fuses(x, conv):
            return _fused_conv(x, conv, relu, plus, overwrite_plus)
        if not identity and norm.training and conv.bias is None and _is_plain(norm, FrozenBatchNorm2d):
            scale, shift = norm.scale_and_shift()
            dtype = conv.weight.dtype  # the norm's numbers have at least float32
            x = _conv(x, conv, (conv.weight * scale.view(-1, 1, 1, 1)).to(dtype), shift.to(dtype))
        else:
            x = _conv_in_full_batches(x, conv)
            x = x if identity else norm(x)
    else:
        x = _conv_in_full_batches(x, conv) if isinstance(conv, nn.ConvTranspose2d) else conv(x)
        x = x if identity else norm(x)
    # What a convolution or a norm returns is nobody else's and no part of its gradient; what a ReLU returns is.
    own = not (isinstance(conv, nn.Sequential) and isinstance(conv[-1], nn.ReLU) and identity)
    own = own and not any_watched(*(part for part in (conv, norm) if part is not None))
    if plus is not None:
        x = x.add_(plus) if own else x + plus
    return F.relu(x, inplace=own or plus is not None) if relu else x


class ConvSequential(nn.Sequential):
    """An nn.Sequential that joins each convolution with the norm and the ReLU behind it, see `conv_norm_act`."""

    def forward(self, x: Tensor) -> Tensor:
        layers = [layer for layer in self if type(layer) is not nn.Identity]
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, (nn.Conv2d, WinogradConv2d)):
                norm = layers.pop(0) if layers and isinstance(layers[0], FrozenBatchNorm2d) else None
                relu = len(layers) > 0 and _is_plain(layers[0], nn.ReLU) and layers[0].inplace
                if relu:
                    layers.pop(0)
                x = conv_norm_act(x, layer, norm, relu=relu)
            else:
                x = layer(x)
        return x


def linear_act(x: Tensor, linear: nn.Module, *, relu: bool = False) -> Tensor:
    """relu(linear(x)) or linear(x), (R, D), for x (R, C)."""
    if _is_plain(linear, nn.Linear) and _fuses(x, linear):
        x, weight, bias = _in_one_dtype(x, linear)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if relu else "none", [], "")
    x = linear(x)
    return F.relu(x, inplace=not any_watched(linear)) if relu else x


def _fused_conv(x, conv, relu, plus, overwrite_plus):
    x, weight, bias = _in_one_dtype(x, conv)
    x = x.contiguous(memory_format=torch.channels_last)
    how = (conv.padding, conv.stride, conv.dilation, conv.groups)
    act = "relu" if relu else "none"
    if plus is None:
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *how, act, [], "")
    act = act if relu else None
    plus = plus.to(x.dtype).contiguous(memory_format=torch.channels_last)
    if overwrite_plus:
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            plus, x, weight, bias, *how, "add", 1.0, act, [], None
        )
    return torch.ops.mkldnn._convolution_pointwise.binary(x, plus, weight, bias, *how, "add", 1.0, act, [], None)


def _conv_in_full_batches(x, conv):
    """conv(x), in training by a number of maps whose gradient is fast."""
    if not torch.is_grad_enabled():  # first: a compiler would make one program for every number of maps
        return _conv(x, conv, conv.weight, conv.bias)
    slow = x.device.type == "cpu" and _compute_dtype(x) == torch.bfloat16 and x.dim() == 4
    if not (slow and x.shape[2] * x.shape[3] <= SMALL_MAP):
        return _conv(x, conv, conv.weight, conv.bias)
    count = len(x)
    missing = -count % FULL_BATCH
    if not missing or count <= FULL_BATCH // 4:
        return _conv(x, conv, conv.weight, conv.bias)
    filled = torch.cat((x, x.new_zeros(missing, *x.shape[1:])))
    return _conv(filled, conv, conv.weight, conv.bias)[:count]


def _conv(x, conv, weight, bias):
    """conv(x) with a weight and a bias of the caller's, if it is plain; with its own otherwise."""
    if not _is_plain(conv, nn.Conv2d):
        return conv(x)
    # in bfloat16 oneDNN's gradients are as fast
    if torch.is_grad_enabled() and _compute_dtype(x) == torch.float32 and not _is_followed():
        if suits(conv) and conv.padding[0] <= 2 and x.numel() and _fits(x, conv):
            return winograd_conv2d(x, weight, bias, conv.padding[0])
    return conv._conv_forward(x, weight, bias)


def _is_plain(module: nn.Module, kind: type) -> bool:
    """Whether it is of this very class and nobody listens to its calls."""
    return type(module) is kind and not is_watched(module)


def _fits(x: Tensor, layer: nn.Module) -> bool:
    """Whether x is a batch of what the layer takes; whatever else it takes or refuses, torch knows."""
    if isinstance(layer, nn.Linear):
        return x.dim() >= 2 and x.shape[-1] == layer.in_features
    return x.dim() == 4 and x.shape[1] == layer.in_channels


def _is_followed() -> bool:
    """Whether a compiler, a tracer, torch.func or forward-mode differentiation follows: they know only torch's ops."""
    return (
        torch.compiler.is_compiling()  # first: a compiler cannot follow what comes behind
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def _fuses(x: Tensor, layer: nn.Module) -> bool:
    """Whether oneDNN's fused ops can compute this layer: they know neither gradients nor compilers."""
    if _is_followed() or torch.is_grad_enabled():
        return False
    if x.device.type != "cpu" or not _has_fused_ops() or x.numel() == 0 or not _fits(x, layer):
        return False
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        return False
    dtype = _compute_dtype(x)
    if dtype not in (torch.float32, torch.bfloat16) or layer.weight.dtype not in (dtype, torch.float32):
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_fused_ops() -> bool:
    """They are torch's own, but not documented: where a version or a build lacks them, layers run one by one."""
    onednn = torch.backends.mkldnn
    return onednn.enabled and onednn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


def _compute_dtype(x: Tensor) -> torch.dtype:
    casts = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64  # which autocast leaves alone
    return torch.get_autocast_dtype("cpu") if casts else x.dtype


def _in_one_dtype(x, layer):
    dtype = _compute_dtype(x)
    bias = layer.bias
    return x.to(dtype), layer.weight.to(dtype), bias if bias is None else bias.to(dtype)
