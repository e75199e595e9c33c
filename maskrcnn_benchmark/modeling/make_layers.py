"""Make the convolutions and linear layers of the heads and FPN: initialized, optionally with GroupNorm and ReLU.

With GroupNorm or ReLU a factory returns an nn.Sequential (layer, [norm], [relu]), otherwise the bare layer. The
state_dict keys depend on this. `num_groups`, `eps` and `dim_per_gp` are passed to `layers.norm.group_norm`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.norm import group_norm

__all__ = ["conv_with_kaiming_uniform", "group_norm", "group_norm_options", "make_conv3x3", "make_fc"]


def group_norm_options(cfg) -> dict:
    """Return MODEL.GROUP_NORM as keyword arguments for the functions in this file."""
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
    """Make a 3x3 convolution that keeps the map's size at stride 1.

    Its initialization is kaiming normal (fan out), or normal with std 0.01 if kaiming_init is False.
    """
    conv = Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=not use_gn)
    if kaiming_init:
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.normal_(conv.weight, std=0.01)
    return _finish(conv, out_channels, use_gn, use_relu, gn_options)


def make_fc(dim_in: int, hidden_dim: int, use_gn: bool = False, **gn_options) -> nn.Module:
    """Make a linear layer, initialized kaiming uniform with a = 1 (the "Xavier" of Caffe2)."""
    fc = nn.Linear(dim_in, hidden_dim, bias=not use_gn)
    nn.init.kaiming_uniform_(fc.weight, a=1)
    return _finish(fc, hidden_dim, use_gn, False, gn_options)


def conv_with_kaiming_uniform(use_gn: bool = False, use_relu: bool = False, **gn_options) -> Callable[..., nn.Module]:
    """Return a factory (in_channels, out_channels, kernel_size, stride=1, dilation=1) of convolutions.

    They keep the map's size at stride 1 and are initialized kaiming uniform with a = 1.
    """

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


def num_classes_of(cfg, section: str) -> int:
    """Return MODEL.<section>.NUM_CLASSES, which counts the background.

    Raises:
        ValueError: it is still -1 ("as many as the training data has").
    """
    num_classes = cfg.MODEL[section].NUM_CLASSES
    if num_classes < 2:
        raise ValueError(
            f"MODEL.{section}.NUM_CLASSES is {num_classes}; expected 2 or more (classes + background). "
            "The tools replace -1 by the number in the training data; elsewhere set it yourself."
        )
    return num_classes
