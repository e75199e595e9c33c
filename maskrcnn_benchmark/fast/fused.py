"""Fuse a convolution or a linear layer with the sum and the ReLU that follow it.

Separately, each of them reads and writes a whole map: a quarter of an R-50-FPN's float32 time on a CPU. Here oneDNN
adds and rectifies while it stores its results. It does so on a CPU without gradients. Otherwise the steps run one by
one.

oneDNN's ReLU turns NaN into 0, where torch's keeps it: `for_inference` warns of non-finite weights.

Shapes: N images, C input channels, D output channels, R rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.conv import is_traced
from maskrcnn_benchmark.layers.winograd import compute_dtype


class FusedConv2d(nn.Module):
    """Compute relu(conv(x) + plus), where `relu` and `plus` are optional.

    Args:
        conv: nn.Conv2d with zero padding.

    Forward takes x (N, C, H, W), plus (N, D, H', W') or None, and `overwrite`: allow the result to use the memory of
    `plus`. It returns (N, D, H', W').
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False):
        super().__init__()
        self.conv = conv
        self.relu = relu

    def forward(self, x: Tensor, plus: Tensor | None = None, overwrite: bool = False) -> Tensor:
        if can_fuse(x, self.conv):
            return self._fused(x, plus, overwrite)
        x = self.conv(x)
        if plus is not None:
            x = x + plus
        return F.relu(x) if self.relu else x

    def _fused(self, x, plus, overwrite):
        conv = self.conv
        x, weight, bias = in_one_dtype(x, conv)
        x = x.contiguous(memory_format=torch.channels_last)
        options = (conv.padding, conv.stride, conv.dilation, conv.groups)
        if plus is None:
            act = "relu" if self.relu else "none"
            return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *options, act, [], "")
        act = "relu" if self.relu else None
        plus = plus.to(x.dtype).contiguous(memory_format=torch.channels_last)
        add = ("add", 1.0, act, [], None)
        if overwrite:
            return torch.ops.mkldnn._convolution_pointwise_.binary(plus, x, weight, bias, *options, *add)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, plus, weight, bias, *options, *add)

    def extra_repr(self) -> str:
        return f"relu={self.relu}"


class FusedLinear(nn.Module):
    """Compute relu(linear(x)) or linear(x), for x (R, C)."""

    def __init__(self, linear: nn.Linear, relu: bool = False):
        super().__init__()
        self.linear = linear
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        if can_fuse(x, self.linear):
            x, weight, bias = in_one_dtype(x, self.linear)
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if self.relu else "none", [], "")
        x = self.linear(x)
        return F.relu(x) if self.relu else x

    def extra_repr(self) -> str:
        return f"relu={self.relu}"


def can_fuse(x: Tensor, layer: nn.Conv2d | nn.Linear) -> bool:
    """Check whether oneDNN's fused ops can compute this layer now: they support neither gradients nor compilers."""
    if is_traced() or torch.is_grad_enabled():
        return False
    if x.device.type != "cpu" or x.numel() == 0 or not has_fused_ops() or not _fits(x, layer):
        return False
    dtype = compute_dtype(x)
    if dtype not in (torch.float32, torch.bfloat16) or layer.weight.dtype not in (dtype, torch.float32):
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def has_fused_ops() -> bool:
    """Check for oneDNN's fused ops. They are part of torch but undocumented: a version or build may lack them."""
    onednn = torch.backends.mkldnn
    return onednn.enabled and onednn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


def in_one_dtype(x: Tensor, layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return x, weight and bias in the dtype of the computation."""
    dtype = compute_dtype(x)
    bias = layer.bias
    return x.to(dtype), layer.weight.to(dtype), bias if bias is None else bias.to(dtype)


def _fits(x: Tensor, layer: nn.Module) -> bool:
    """Check that x is a batch of the layer's inputs; everything else is left to torch."""
    if isinstance(layer, nn.Linear):
        return x.dim() >= 2 and x.shape[-1] == layer.in_features
    return x.dim() == 4 and x.shape[1] == layer.in_channels
