"""Convolutions and linear layers as the heads and FPN build them: initialised, optionally with GroupNorm and ReLU.

With GroupNorm or ReLU a factory returns an nn.Sequential (layer, [norm], [relu]), without them the bare layer: the
state_dict keys depend on it. `num_groups`, `eps` and `dim_per_gp` are `layers.norm.group_norm`'s.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.norm import group_norm

__all__ = ["conv_with_kaiming_uniform", "group_norm", "group_norm_options", "make_conv3x3", "make_fc"]


def group_norm_options(cfg) -> dict:
    """MODEL.GROUP_NORM as keyword arguments of everything in this file."""
    node = cfg.MODEL.GROUP_NORM
    return {"num_groups": node.NUM_GROUPS, "eps": node.EPSILON, "dim_per_gp": node.DIM_PER_GP}


def make_conv3x3(
    in_channels: int,
    out_channels: int,
    dilation: int = 1,
    stride: int = 1,
    use_gn: bool = False,
    use_relu: bool = False,
    kaiming_init: bool = True,
    **gn_options,
) -> nn.Module:
    """3x3 convolution that keeps the map's size (at stride 1), kaiming normal (fan out) or normal with std 0.01."""
    conv = Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=not use_gn)
    if kaiming_init:
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.normal_(conv.weight, std=0.01)
    return _finish(conv, out_channels, use_gn, use_relu, gn_options)


def make_fc(dim_in: int, hidden_dim: int, use_gn: bool = False, **gn_options) -> nn.Module:
    """Linear layer, kaiming uniform with a = 1 (the "Xavier" of Caffe2)."""
    fc = nn.Linear(dim_in, hidden_dim, bias=not use_gn)
    nn.init.kaiming_uniform_(fc.weight, a=1)
    return _finish(fc, hidden_dim, use_gn, False, gn_options)


def conv_with_kaiming_uniform(use_gn: bool = False, use_relu: bool = False, **gn_options) -> Callable[..., nn.Module]:
    """A factory (in_channels, out_channels, kernel_size, stride=1, dilation=1) of convolutions that keep the map's
    size (at stride 1), kaiming uniform with a = 1."""

    def make_conv(in_channels, out_channels, kernel_size, stride=1, dilation=1):
        padding = dilation * (kernel_size - 1) // 2
        conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=not use_gn)
        nn.init.kaiming_uniform_(conv.weight, a=1)
        return _finish(conv, out_channels, use_gn, use_relu, gn_options)

    return make_conv


def _finish(layer, channels, use_gn, use_relu, gn_options):
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if not use_gn and not use_relu:
        return layer
    parts = [layer]
    if use_gn:
        parts.append(group_norm(channels, **gn_options))
    if use_relu:
        parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts)
