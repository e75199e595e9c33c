"""Deformable convolution, v1 (Dai et al., ICCV 2017) and v2 (Zhu et al., CVPR 2019). torchvision's op computes it.

Shapes: N images, C input channels, O output channels, H x W the input map, H' x W' the output map, k = kernel height
times kernel width, D deformable groups: the input channels are cut into D parts that have offsets of their own.
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
    """v1: a convolution whose k taps are each shifted by an offset of their own at every position.

    Args:
        input: (N, C, H, W) floating.
        offset: (N, 2 D k, H', W') pixels of the input map: for every deformable group and tap, row by row of the
            kernel, dy then dx. The map is read bilinearly there, and is 0 outside.
        weight: (O, C / groups, kernel height, kernel width).
        im2col_step: not used. The forks' kernel worked on so many images at a time.

    Returns:
        (N, O, H', W') of input's dtype. Half precisions are computed in float32: offsets are positions, and bfloat16
        knows those beyond 256 pixels to 2 pixels only.

    Raises:
        ValueError: offset has another number of channels.
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
    """v2: `deform_conv` whose taps are multiplied by `mask` (N, D k, H', W'), in the order of the offsets; and a bias
    (O,) if given."""
    return _deform_conv(input, offset, mask, weight, bias, stride, padding, dilation, groups, deformable_groups)


def _deform_conv(input, offset, mask, weight, bias, stride, padding, dilation, groups, deformable_groups):
    from torchvision.ops import deform_conv2d  # it takes seconds to import

    taps = deformable_groups * weight.shape[2] * weight.shape[3]
    for name, given, wanted in (("offset", offset, 2 * taps), ("mask", mask, taps)):
        if given is not None and given.shape[1] != wanted:
            kernel = f"{weight.shape[2]}x{weight.shape[3]}"
            raise ValueError(
                f"{name} has {given.shape[1]} channels; a {kernel} kernel and deformable_groups "
                f"{deformable_groups} want {wanted}"
            )
    if input.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"input has {input.shape[1]} channels, weight {tuple(weight.shape)} and groups {groups} want "
            f"{weight.shape[1] * groups}"
        )
    dtype = torch.promote_types(input.dtype, torch.float32)
    operands = (None if operand is None else operand.to(dtype) for operand in (input, offset, weight, bias, mask))
    input_, offset, weight, bias, mask = operands
    out = deform_conv2d(input_, offset, weight, bias, _pair(stride), _pair(padding), _pair(dilation), mask)
    return out.to(input.dtype)


class DeformConv(nn.Module):
    """`deform_conv` with its weight: call (input, offset). Uniform within 1 / sqrt(C k), bias 0."""

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
                raise ValueError(f"{name} {channels} can't be cut into {parts} groups")
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
    """`modulated_deform_conv` with its weight: call (input, offset, mask)."""

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
    """ModulatedDeformConv that predicts offsets and mask from its own input: call (input). Its convolution
    `conv_offset_mask` starts at 0: no offsets, and a mask of 0.5 everywhere."""

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
    """A deformable convolution that predicts its offsets (and, modulated, its mask) from its own input.

    The ordinary convolution `offset` yields 2 D k channels of offsets and, modulated, D k channels whose sigmoid is
    the mask; `conv` is the deformable one. A map keeps its size at stride 1.

    The offsets' weights start kaiming uniform with a = 1 and the biases at 0, as in the forks: a fresh layer is not
    an ordinary convolution.
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
