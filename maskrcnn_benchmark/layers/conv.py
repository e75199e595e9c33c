"""Convolutions that use the fastest algorithm for training on a CPU. On other devices they are torch's own.

`fast.for_inference` replaces them for evaluation, so forward without gradients is torch's, too.

Shapes: N images, C input channels, D output channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from maskrcnn_benchmark.layers import winograd

# oneDNN's bfloat16 gradient of 3x3 weights, 256 channels of 14 x 14, one AVX-512 core: 14 ms for 16 maps, but 118 ms
# for 15 and 61 ms for 8, because it has no good kernel for these. Batches of small maps are padded to a multiple of
# this.
FULL_BATCH = 16
SMALL_MAP = 32 * 32


class Conv2d(nn.Conv2d):
    """nn.Conv2d with faster training on a CPU; same arguments, parameters and keys.

    - float32: 3x3 convolutions with stride 1 use the Winograd algorithm (layers/winograd.py). Set `winograd = False` on
      a module, or WINOGRAD False in the config of a model, to disable it.
    - bfloat16: batches of small maps are padded to a size for which oneDNN has a fast gradient.

    Forward: (N, C, H, W) to (N, D, H', W').
    """

    winograd = True

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with the given weight and bias, which have the shapes of this module's own."""
        if not torch.is_grad_enabled() or is_traced():
            return self._conv_forward(x, weight, bias)
        if self._takes_winograd(x):
            return winograd.winograd_conv2d(x, weight, bias, self.padding[0], self.dilation[0])
        return in_full_batches(lambda maps: self._conv_forward(maps, weight, bias), x)

    def _takes_winograd(self, x: Tensor) -> bool:
        return (
            self.winograd
            and x.dim() == 4
            and x.shape[1] == self.in_channels  # otherwise torch raises its error
            and x.numel() > 0
            # oneDNN's bfloat16 gradients are as fast
            and winograd.compute_dtype(x) == torch.float32
            and winograd.suits(self)
            and self.padding[0] <= 2 * self.dilation[0]
            # if the padded map is smaller than the filter, torch raises its error
            and all(side + 2 * self.padding[0] > 2 * self.dilation[0] for side in x.shape[-2:])
        )


class ConvTranspose2d(nn.ConvTranspose2d):
    """nn.ConvTranspose2d whose bfloat16 training pads batches of small maps like Conv2d's."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not torch.is_grad_enabled() or is_traced():
            return super().forward(x, output_size)
        return in_full_batches(lambda maps: super(ConvTranspose2d, self).forward(maps, output_size), x)


def in_full_batches(convolve: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Call convolve(x), with the batch padded with maps of zeros if that makes the gradients faster."""
    count = len(x)
    missing = -count % FULL_BATCH
    small = x.dim() == 4 and x.shape[2] * x.shape[3] <= SMALL_MAP
    slow = small and x.device.type == "cpu" and winograd.compute_dtype(x) == torch.bfloat16
    if not slow or not missing or count <= FULL_BATCH // 4:
        return convolve(x)
    return convolve(torch.cat((x, x.new_zeros(missing, *x.shape[1:]))))[:count]


def is_traced() -> bool:
    """Detect compilers, tracers, torch.func and forward-mode differentiation, which support only torch's own ops."""
    return (
        torch.compiler.is_compiling()  # first: a compiler cannot trace the others
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
