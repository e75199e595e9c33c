"""Deformable convolution, v1 (Dai et al., ICCV 2017) and v2 (Zhu et al., CVPR 2019), computed by torchvision's op.

Shapes: N images, C input channels, O output channels, H x W the input map, H' x W' the output map, k = kernel height
times kernel width, D deformable groups: the input channels are split into D groups with separate offsets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair


def deform_conv(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
) -> Tensor:
    """Compute a deformable convolution, v1: each of the k taps is shifted by an offset at every position.

    Args:
        input: (N, C, H, W) floating.
        offset: (N, 2 D k, H', W') pixels of the input map: for every deformable group and tap, row by row of the
            kernel, dy then dx. The map is interpolated bilinearly there, and is 0 outside.
        weight: (O, C / groups, kernel height, kernel width).
        im2col_step: unused. The forks' kernel processed this many images at a time.

    Returns:
        (N, O, H', W') in input's dtype. Half precisions are computed in float32: offsets are positions, and beyond 256
        pixels bfloat16 only resolves 2 pixels.

    Raises:
        ValueError: the number of channels of offset does not match.
        ImportError: torchvision is not installed.
    """
    return _deform_conv(input, offset, None, weight, None, stride, padding, dilation, groups, deformable_groups)


def modulated_deform_conv(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """Compute a deformable convolution, v2: `deform_conv` with every tap multiplied by a mask, and an optional bias.

    Args:
        mask: (N, D k, H', W'), in the order of the offsets.
        bias: (O,) or None.
    """
    return _deform_conv(input, offset, mask, weight, bias, stride, padding, dilation, groups, deformable_groups)


def _deform_conv(input, offset, mask, weight, bias, stride, padding, dilation, groups, deformable_groups):
    from torchvision.ops import deform_conv2d  # the import takes seconds

    taps = deformable_groups * weight.shape[2] * weight.shape[3]
    for name, given, expected in (("offset", offset, 2 * taps), ("mask", mask, taps)):
        if given is not None and given.shape[1] != expected:
            kernel = f"{weight.shape[2]}x{weight.shape[3]}"
            raise ValueError(
                f"{name} has {given.shape[1]} channels; a {kernel} kernel and deformable_groups "
                f"{deformable_groups} require {expected}"
            )
    if input.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"input has {input.shape[1]} channels; weight {tuple(weight.shape)} and groups {groups} require "
            f"{weight.shape[1] * groups}"
        )
    dtype = torch.promote_types(input.dtype, torch.float32)
    operands = (None if operand is None else operand.to(dtype) for operand in (input, offset, weight, bias, mask))
    input_, offset, weight, bias, mask = operands
    out = deform_conv2d(input_, offset, weight, bias, _pair(stride), _pair(padding), _pair(dilation), mask)
    return out.to(input.dtype)


class DeformConv(nn.Module):
    """`deform_conv` with a weight: call (input, offset). Initialized uniformly within 1 / sqrt(C k), bias 0."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
    ):
        super().__init__()
        for name, channels, parts in (
            ("in_channels", in_channels, groups),
            ("out_channels", out_channels, groups),
            ("in_channels", in_channels, deformable_groups),
        ):
            if channels % parts:
                raise ValueError(f"{name} {channels} cannot be divided into {parts} groups")
        kernel_size = _pair(kernel_size)
        self.geometry = (stride, padding, dilation, groups, deformable_groups)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *kernel_size))
        bound = 1 / math.sqrt(in_channels * kernel_size[0] * kernel_size[1])
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, input: Tensor, offset: Tensor) -> Tensor:
        return _deform_conv(input, offset, None, self.weight, self.bias, *self.geometry)

    def extra_repr(self) -> str:
        names = ("stride", "padding", "dilation", "groups", "deformable_groups")
        numbers = (f"{name}={value}" for name, value in zip(names, self.geometry, strict=True))
        return f"weight={tuple(self.weight.shape)}, bias={self.bias is not None}, {', '.join(numbers)}"


class ModulatedDeformConv(DeformConv):
    """`modulated_deform_conv` with a weight: call (input, offset, mask)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups, bias
        )

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        return _deform_conv(input, offset, mask, self.weight, self.bias, *self.geometry)


class ModulatedDeformConvPack(ModulatedDeformConv):
    """ModulatedDeformConv that predicts offsets and mask from its input: call (input).

    Its convolution `conv_offset_mask` is initialized to 0: no offsets, and a mask of 0.5 everywhere.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1,
                 deformable_groups=1, bias=True):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups, bias
        )
        kernel_size = _pair(kernel_size)
        self.taps = deformable_groups * kernel_size[0] * kernel_size[1]
        self.conv_offset_mask = nn.Conv2d(in_channels, 3 * self.taps, kernel_size, stride, padding, dilation)
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, input: Tensor) -> Tensor:
        offset, mask = self.conv_offset_mask(input).split((2 * self.taps, self.taps), dim=1)
        return super().forward(input, offset, mask.sigmoid())


class DFConv2d(nn.Module):
    """Deformable convolution that predicts its offsets (and, if modulated, its mask) from its input.

    The convolution `offset` returns 2 D k channels of offsets and, if modulated, D k channels whose sigmoid is the
    mask. `conv` is the deformable convolution. A map keeps its size at stride 1.

    The weights of the offsets are initialized kaiming uniform with a = 1 and their biases to 0, as in the forks: an
    untrained layer is not an ordinary convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        with_modulated_dcn: bool = True,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        groups: int = 1,
        dilation: int | tuple[int, int] = 1,
        deformable_groups: int = 1,
        bias: bool = False,
    ):
        super().__init__()
        kernel_size, dilation = _pair(kernel_size), _pair(dilation)
        padding = tuple(d * (size - 1) // 2 for d, size in zip(dilation, kernel_size, strict=True))
        self.with_modulated_dcn = with_modulated_dcn
        self.taps = deformable_groups * kernel_size[0] * kernel_size[1]
        predicted = (3 if with_modulated_dcn else 2) * self.taps
        self.offset = nn.Conv2d(in_channels, predicted, kernel_size, stride, padding, dilation)
        nn.init.kaiming_uniform_(self.offset.weight, a=1)
        nn.init.zeros_(self.offset.bias)
        kind = ModulatedDeformConv if with_modulated_dcn else DeformConv
        self.conv = kind(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, deformable_groups, bias
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.with_modulated_dcn:
            return self.conv(x, self.offset(x))
        offset, mask = self.offset(x).split((2 * self.taps, self.taps), dim=1)
        return self.conv(x, offset, mask.sigmoid())
