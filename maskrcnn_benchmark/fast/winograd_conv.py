"""A 3x3 convolution with fixed weights that uses the Winograd algorithm, for inference on a CPU.

Shapes: N images, C input channels, K output channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers.winograd import compute_dtype, join_grids, split_grids


class WinogradConv2d(nn.Module):
    """Compute relu(conv(x)) or conv(x), in float32, or in bfloat16 if autocast or x requires it.

    The transformed weights are a copy, 4 times as large as the convolution's. They stay float32 and on the CPU,
    whatever the parent module is converted to.

    Args:
        conv: a convolution for which `layers.winograd.suits` is True.
        relu: apply a ReLU to the result.

    Forward: (N, C, H, W) or (C, H, W) to (N, K, H', W') in channels_last.

    Raises, in forward:
        RuntimeError: x requires a gradient.
        ValueError: x has another number of channels.
        TypeError: x is neither float32, bfloat16 nor float16.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False):
        super().__init__()
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.padding, self.dilation = conv.padding[0], conv.dilation[0]
        self.relu = relu
        weight = torch.ops.maskrcnn_benchmark.winograd_weight(conv.weight.detach(), False)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone().float())

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self(x[None])[0]
        x, dtype = self.prepare(x)
        if self.dilation == 1:
            return self._convolve(x, self.padding).to(dtype)
        height, width = (side + 2 * (self.padding - self.dilation) for side in x.shape[-2:])
        grids = self._convolve(split_grids(x, self.dilation), self.padding // self.dilation)
        return join_grids(grids, self.dilation, height, width).to(dtype)

    def _convolve(self, x: Tensor, padding: int) -> Tensor:
        return torch.ops.maskrcnn_benchmark.winograd_conv(x, self.weight, self.bias, padding, self.relu)

    def prepare(self, x: Tensor) -> tuple[Tensor, torch.dtype]:
        """Check x, and return it in a dtype that the op supports, with the dtype of the result; raise as forward."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise RuntimeError(
                "a model from for_inference computes its 3x3 convolutions without gradients, but the input requires "
                "one; use the model itself, or for_inference(..., winograd=False), or torch.no_grad()"
            )
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"input is {tuple(x.shape)}; expected (N, {self.in_channels}, H, W)")
        if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise TypeError(
                f"input is {x.dtype}; a model from for_inference supports float32, bfloat16 and float16, "
                "and any other dtype with for_inference(..., winograd=False)"
            )
        dtype = compute_dtype(x)
        return x.to(torch.float32 if dtype == torch.float16 else dtype), dtype

    def _apply(self, fn, recurse=True):
        for name, buffer in list(self._buffers.items()):
            if buffer is not None:
                changed = fn(buffer)
                if changed.device.type != "cpu":
                    raise RuntimeError(
                        f"a model from for_inference cannot move to {changed.device}; move the model itself and call "
                        "for_inference there, or for_inference(..., winograd=False)"
                    )
                self._buffers[name] = changed if changed.dtype == buffer.dtype else buffer
        return self

    def extra_repr(self) -> str:
        relu = ", relu" if self.relu else ""
        dilation = f", dilation={self.dilation}" if self.dilation > 1 else ""
        return f"{self.in_channels}, {self.out_channels}, padding={self.padding}{dilation}{relu}"


def winograd_chain(x: Tensor, convs: Sequence[WinogradConv2d]) -> Tensor:
    """Concatenate x and the outputs of a chain of convolutions with ReLU, without the copies of torch.cat.

    Args:
        x: (N, C, H, W).
        convs: C to K_1 channels, K_1 to K_2 and so on, all with padding 1 and without dilation.

    Returns:
        (N, C + K_1 + K_2 + ..., H, W).
    """
    x, dtype = convs[0].prepare(x)
    biases = [conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias for conv in convs]
    return torch.ops.maskrcnn_benchmark.winograd_chain(x, [conv.weight for conv in convs], biases).to(dtype)
