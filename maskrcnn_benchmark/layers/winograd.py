"""Compute 3x3 convolutions on a CPU with a quarter of the multiplications (Lavin & Gray, CVPR 2016).

Kernel: csrc/cpu/winograd.cpp. Its rounding errors are those of a float32 convolution, about 1e-6 of the results'
standard deviation. This holds for bfloat16, too: only inputs and outputs are rounded to it.

Shapes: N images, C channels in, K channels out; C and K are multiples of 16.
"""

from __future__ import annotations

import math
import weakref

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.native import library

CHANNELS = 16  # C and K must be multiples of this
TILE = 4  # side, in pixels, of the output tiles
# With fewer tiles, reading and writing the gradients of 36 C K transformed taps takes longer than oneDNN's gradient:
# float32, 256 channels, an AVX-512 core: 800 tiles 35 ms against 117, 200 tiles 12 against 20, 18 tiles 5 against 2.
GRADIENT_TILES = 128
# Largest dilation for which it is faster. Float32, an AVX-512 core, oneDNN's time against ours: 512 channels on 65 x 65
# points, 88 ms against 41 with dilation 2 and 83 against 50 with 4; on 33 x 33, 21 against 12 with 2. With 6 and more,
# tiles are larger than the grids, and oneDNN skips taps in the padding: 1024 channels on 33 x 33, 19 against 17 with 6
# and 15 against 18 with 12.
MAX_DILATION = 4


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which a convolution of x computes: autocast's if it is enabled, otherwise x's own."""
    casts = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64  # autocast does not change float64
    return torch.get_autocast_dtype("cpu") if casts else x.dtype


def suits(conv: nn.Conv2d, dtype: torch.dtype = torch.float32) -> bool:
    """Check whether this convolution is supported, and faster than torch's on this machine, computing in `dtype`.

    On CPUs with matrix tiles for bfloat16 (AMX), torch's bfloat16 convolutions are faster.
    """
    dilation = conv.dilation[0]
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == (1, 1)
        and conv.dilation == (dilation, dilation)
        and dilation <= MAX_DILATION
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.padding[0] == conv.padding[1]
        and conv.padding[0] % dilation == 0
        and conv.in_channels % CHANNELS == 0
        and conv.out_channels % CHANNELS == 0
        and conv.weight.device.type == "cpu"
        and conv.weight.dtype == torch.float32
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()))
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and library.kernels_for(conv.weight.device)
    )


def split_grids(x: Tensor, dilation: int) -> Tensor:
    """Split maps into the dilation^2 independent grids of a dilated convolution.

    On each grid it is a convolution without dilation, with padding / dilation.

    Args:
        x: (N, C, H, W); zeros are added at the right and at the bottom if a side is not a multiple of the dilation.

    Returns:
        (N * dilation^2, C, ceil(H / dilation), ceil(W / dilation)) in channels_last.
    """
    n, channels, height, width = x.shape
    rows, columns = (-(-side // dilation) for side in (height, width))
    x = F.pad(x, (0, columns * dilation - width, 0, rows * dilation - height)).permute(0, 2, 3, 1)
    x = x.reshape(n, rows, dilation, columns, dilation, channels).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n * dilation**2, rows, columns, channels).permute(0, 3, 1, 2)


def join_grids(grids: Tensor, dilation: int, height: int, width: int) -> Tensor:
    """Invert `split_grids`: (N, C, height, width), with the padding cropped."""
    count, channels, rows, columns = grids.shape
    x = grids.permute(0, 2, 3, 1).reshape(-1, dilation, dilation, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
    x = x.reshape(count // dilation**2, rows * dilation, columns * dilation, channels)
    return x[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, dilation: int = 1) -> Tensor:
    """Compute a 3x3 convolution with stride 1 and its gradients by the Winograd algorithm.

    Gradients that are differentiated again are computed by torch.

    Args:
        x: (N, C, H, W) float32 or bfloat16; autocast casts it.
        weight: (K, C, 3, 3) float32.
        bias: (K,) float32.
        padding: 0 to 2, times the dilation.

    Returns:
        (N, K, H', W') in channels_last.
    """
    if dilation > 1:
        height, width = (side + 2 * (padding - dilation) for side in x.shape[-2:])
        grids = winograd_conv2d(split_grids(x, dilation), weight, bias, padding // dilation)
        return join_grids(grids, dilation, height, width)
    return _WinogradConv.apply(x.to(compute_dtype(x)), weight, bias, padding, _taps_of(weight))


class _Taps:
    """Transformed taps of a weight, cached from the second use on for heads shared by all levels of a pyramid.

    A cached value is compared with the weight before it is used: fused optimizers and writes to `.data` do not change
    the weight's `_version`. The comparison takes a tenth of the time of the transform.
    """

    def __init__(self, weight: Tensor):
        self.weight = weight
        self.keep = False
        self.made_from: Tensor | None = None
        self.made: dict[bool, Tensor] = {}

    def get(self, transposed: bool) -> Tensor:
        """Return the taps of the convolution, or, if transposed, those of its gradient."""
        if self.made_from is not None and not torch.equal(self.made_from, self.weight):
            self.made_from, self.made = None, {}
        if transposed:
            self.made.pop(False, None)  # the forward pass is over
        if transposed in self.made:
            return self.made[transposed]
        taps = torch.ops.maskrcnn_benchmark.winograd_weight(self.weight.detach(), transposed)
        if self.keep:
            if self.made_from is None:
                self.made_from = self.weight.detach().clone()
            self.made[transposed] = taps
        return taps


# id(weight) -> taps. Only autograd's graph references the taps, so they are freed with it. They reference the weight,
# so that its id stays unique.
_taps: weakref.WeakValueDictionary[int, _Taps] = weakref.WeakValueDictionary()


def _taps_of(weight: Tensor) -> _Taps:
    taps = _taps.get(id(weight))
    if taps is None:
        taps = _taps[id(weight)] = _Taps(weight)
    else:
        taps.keep = True
    return taps


class _WinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, padding, taps):
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.taps = padding, taps
        return torch.ops.maskrcnn_benchmark.winograd_conv(x, taps.get(False), bias, padding, False)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            mask = ctx.needs_input_grad[:3]
            options = (weight.shape[:1], (1, 1), (ctx.padding,) * 2, (1, 1), False, (0, 0), 1, mask)
            grads = torch.ops.aten.convolution_backward(grad, x, weight.to(x.dtype), *options)
            return grads[0], *(None if each is None else each.float() for each in grads[1:]), None, None
        wants_x, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = grad_weight = grad_bias = None
        if wants_x:
            taps = ctx.taps.get(True)
            grad_x = torch.ops.maskrcnn_benchmark.winograd_conv(grad, taps, None, 2 - ctx.padding, False)
        if wants_weight:
            grad_weight = _weight_grad(grad, x, weight, ctx.padding)
        if wants_bias:
            grad_bias = grad.sum((0, 2, 3), dtype=torch.float32)
        return grad_x, grad_weight, grad_bias, None, None


def _weight_grad(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> Tensor:
    if len(grad) * math.ceil(grad.shape[2] / TILE) * math.ceil(grad.shape[3] / TILE) >= GRADIENT_TILES:
        return torch.ops.maskrcnn_benchmark.winograd_weight_grad(grad, x, padding)
    options = ([0], (1, 1), (padding, padding), (1, 1), False, (0, 0), 1, (False, True, False))
    return torch.ops.aten.convolution_backward(grad, x, weight.to(x.dtype), *options)[1].float()


if library.declared():

    @torch.library.register_fake("maskrcnn_benchmark::winograd_weight")
    def _weight_fake(weight, transposed):
        count = weight.shape[0] * weight.shape[1]
        plane = (count + 1023) // 1024 * 1024 + CHANNELS  # plane_size in csrc/cpu/winograd.h
        return torch.empty(36, plane, dtype=torch.float32, device=weight.device)[:, :count]

    @torch.library.register_fake("maskrcnn_benchmark::winograd_conv")
    def _conv_fake(input, weight, bias, padding, relu):
        n, c, height, width = input.shape
        shape = (n, weight.shape[1] // c, height + 2 * padding - 2, width + 2 * padding - 2)
        return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)

    @torch.library.register_fake("maskrcnn_benchmark::winograd_weight_grad")
    def _weight_grad_fake(grad, input, padding):
        shape = (grad.shape[1], input.shape[1], 3, 3)
        return torch.empty(shape, dtype=torch.float32, device=input.device, memory_format=torch.channels_last)

    @torch.library.register_fake("maskrcnn_benchmark::winograd_chain")
    def _chain_fake(input, weights, biases):
        n, c, height, width = input.shape
        shape = (n, c + sum(len(bias) for bias in biases), height, width)
        return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)
