"""3x3 convolutions of fixed weights with a quarter of the multiplications, on the CPU.

Kernel: csrc/cpu/winograd.cpp. Its rounding errors are those of a float32 convolution, about 1e-6 of the results'
spread, in bfloat16 too: only what goes in and what comes out is rounded to it.

Shapes: N images, C channels in, K channels out; C and K are multiples of 16.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers.hooks import any_watched, is_watched
from maskrcnn_benchmark.native import library

CHANNELS = 16  # what their numbers are multiples of
TILE = 4  # pixels of the result on a side that are computed together
# Below this, reading and writing the gradients of 36 C K transformed taps takes longer than oneDNN's whole gradient:
# float32, 256 channels, an AVX-512 core: 800 tiles 35 ms against 117, 200 tiles 12 against 20, 18 tiles 5 against 2.
GRADIENT_TILES = 128

_enabled = True


def enable(on: bool) -> None:
    """Whether 3x3 convolutions of this process may take this way, training and `for_inference` alike; True at first."""
    global _enabled
    _enabled = on


@contextlib.contextmanager
def enabled(on: bool):
    """`enable(on)` for a while."""
    before = _enabled
    enable(on)
    try:
        yield
    finally:
        enable(before)


class WinogradConv2d(nn.Module):
    """What `conv` computes, in float32, or in bfloat16 where autocast or its input asks for it.

    It keeps its own weights, 4 times as many numbers as the convolution's, of which it takes a copy now. They stay
    float32 and on the CPU, whatever the module around it is converted to.

    Args:
        conv: `suits(conv)` is true.

    Forward: x (N, C, H, W), or (C, H, W), to (N, K, H', W') in channels_last. `relu` cuts off what is below 0.

    Raises, in forward:
        RuntimeError: x wants a gradient.
        ValueError: x has another number of channels.
        TypeError: x is neither float32 nor a type of half its size.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.in_channels, self.out_channels, self.padding = conv.in_channels, conv.out_channels, conv.padding[0]
        weight = torch.ops.maskrcnn_benchmark.winograd_weight(conv.weight.detach(), False)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone().float())

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        if x.dim() == 3:
            return self(x[None], relu)[0]
        self.check(x)
        dtype = self.compute_dtype(x)
        x = x.to(torch.float32 if dtype == torch.float16 else dtype)
        return torch.ops.maskrcnn_benchmark.winograd_conv(x, self.weight, self.bias, self.padding, relu).to(dtype)

    def check(self, x: Tensor) -> None:
        """Raises what forward does."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise RuntimeError(
                "a model by for_inference computes its 3x3 convolutions without gradients, and the input wants one; "
                "take the model itself, or for_inference(..., winograd=False), or torch.no_grad()"
            )
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"input is {tuple(x.shape)}; wanted (N, {self.in_channels}, H, W)")
        if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise TypeError(
                f"input is {x.dtype}; a model by for_inference takes float32, bfloat16 and float16, "
                "any other type with for_inference(..., winograd=False)"
            )

    def _apply(self, fn, recurse=True):
        for name, buffer in list(self._buffers.items()):
            if buffer is not None:
                changed = fn(buffer)
                if changed.device.type != "cpu":
                    raise RuntimeError(
                        f"a model by for_inference cannot move to {changed.device}; move the model itself and call "
                        "for_inference there, or for_inference(..., winograd=False)"
                    )
                self._buffers[name] = changed if changed.dtype == buffer.dtype else buffer
        return self

    @staticmethod
    def compute_dtype(x: Tensor) -> torch.dtype:
        if torch.is_autocast_enabled("cpu"):
            return torch.get_autocast_dtype("cpu")
        return x.dtype

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, padding={self.padding}"


def suits(conv: nn.Module, dtype: torch.dtype = torch.float32) -> bool:
    """Whether a WinogradConv2d can take the place of this module and is faster on this machine, computing in `dtype`.

    Where the CPU has matrix tiles for bfloat16 (AMX), ordinary bfloat16 convolutions are faster.
    """
    if not _enabled or type(conv) is not nn.Conv2d or is_watched(conv):
        return False
    if conv.weight.device.type != "cpu" or conv.weight.dtype != torch.float32:
        return False
    ones = (1, 1)
    return (
        conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == ones
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.padding[0] == conv.padding[1]
        and conv.in_channels % CHANNELS == 0
        and conv.out_channels % CHANNELS == 0
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()))
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and library.kernels_for(conv.weight.device)
    )


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """A 3x3 convolution with stride 1 for training, results and gradients by Winograd's filtering: (N, K, H', W').

    Gradients that are to be differentiated again are torch's.

    Args:
        x: (N, C, H, W) float32 or bfloat16; autocast changes it.
        weight: (K, C, 3, 3) float32.
        bias: (K,) float32.
        padding: 0 to 2.
    """
    shared = _shared.get()
    filters = _Filters(weight, keep=False)
    if shared is not None:
        filters = shared.setdefault(id(weight), _Filters(weight, keep=True))
    return _WinogradConv.apply(x.to(WinogradConv2d.compute_dtype(x)), weight, bias, padding, filters)


class _Filters:
    """A weight's transformed taps, made when they are asked for."""

    def __init__(self, weight: Tensor, keep: bool):
        self.weight = weight  # held, so that its id is no other's
        self.keep = keep
        self.made: dict[bool, Tensor] = {}

    def get(self, transposed: bool) -> Tensor:
        if transposed in self.made:
            return self.made[transposed]
        taps = torch.ops.maskrcnn_benchmark.winograd_weight(self.weight.detach(), transposed)
        if self.keep:
            self.made[transposed] = taps
        return taps


_shared: ContextVar[dict[int, _Filters] | None] = ContextVar("filters that several maps share", default=None)


@contextlib.contextmanager
def shared_filters():
    """Within it, `winograd_conv2d` transforms each weight once, for heads that see every level of a pyramid in turn.

    Weights must not change within it. What the backward pass transforms lives as long as the graph.
    """
    filters: dict[int, _Filters] = {}
    token = _shared.set(filters)
    try:
        yield
    finally:
        _shared.reset(token)
        for each in filters.values():
            each.made.clear()


class _WinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, padding, filters):
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.filters = padding, filters
        return torch.ops.maskrcnn_benchmark.winograd_conv(x, filters.get(False), bias, padding, False)

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
            taps = ctx.filters.get(True)
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


def winograd_relu(layers: nn.Sequential) -> WinogradConv2d | None:
    """The convolution, when `layers` are one and a ReLU, with nothing else that counts, and without hooks."""
    counting = [layer for layer in layers if type(layer) is not nn.Identity]
    fits = len(counting) == 2 and isinstance(counting[0], WinogradConv2d) and type(counting[1]) is nn.ReLU
    return counting[0] if fits and not any_watched(layers) else None


def chain_into_one(x: Tensor, convs: Sequence[WinogradConv2d]) -> Tensor:
    """x and what each convolution and ReLU makes of the one before, side by side: torch.cat without its copies.

    Args:
        x: (N, C, H, W).
        convs: C to K_1, K_1 to K_2 and so on, all with padding 1.

    Returns (N, C + K_1 + K_2 + ..., H, W).
    """
    convs[0].check(x)
    dtype = WinogradConv2d.compute_dtype(x)
    x = x.to(torch.float32 if dtype == torch.float16 else dtype)
    biases = [conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias for conv in convs]
    return torch.ops.maskrcnn_benchmark.winograd_chain(x, [conv.weight for conv in convs], biases).to(dtype)


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
