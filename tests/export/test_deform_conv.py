"""Deformable convolution out of GridSample computes what torchvision's op does."""

from typing import NamedTuple

import pytest
import torch
from helpers.onnx_session import OnnxSession, require
from torch import nn

from maskrcnn_benchmark.export import deform_conv

CHANNELS = 4


class Options(NamedTuple):
    """Pairs are (rows, columns)."""

    groups: int
    offset_groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    use_mask: bool


class Deform(nn.Module):
    def __init__(self, options: Options):
        super().__init__()
        self.options = options
        self.weight = nn.Parameter(torch.randn(6, CHANNELS // options.groups, *options.kernel))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x, offset, mask):
        groups, offset_groups, _, stride, pad, dilation, use_mask = self.options
        numbers = *stride, *pad, *dilation, groups, offset_groups, use_mask
        return torch.ops.torchvision.deform_conv2d(x, self.weight, offset, mask, self.bias, *numbers)

    def inputs(self, images, *size):
        _, offset_groups, kernel, stride, pad, dilation, use_mask = self.options
        sides = zip(size, kernel, stride, pad, dilation, strict=True)
        out = [(side + 2 * p - d * (k - 1) - 1) // s + 1 for side, k, s, p, d in sides]
        taps = offset_groups * kernel[0] * kernel[1]
        offset = torch.randn(images, 2 * taps, *out) * 3  # many places are outside of the map
        return torch.randn(images, CHANNELS, *size), offset, torch.rand(images, taps if use_mask else 0, *out)


@pytest.mark.parametrize("use_mask", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        (1, 1, (3, 3), (1, 1), (1, 1), (1, 1)),
        (2, 2, (3, 2), (2, 1), (2, 1), (1, 2)),
        (2, 4, (1, 1), (1, 1), (0, 0), (1, 1)),
    ],
)
def test_samples_equal_the_op(options, use_mask, rng_seed):
    require("onnx", "onnxscript", "onnxruntime", "torchvision.ops")  # the last registers the op
    model = Deform(Options(*options, use_mask))
    run = OnnxSession(model, model.inputs(2, 11, 14), [(0, 2, 3)] * 3, deform_conv.onnx_translations)
    assert "DeformConv" not in run.operators
    for given in (model.inputs(2, 11, 14), model.inputs(1, 5, 4)):
        (found,) = run(*given)
        torch.testing.assert_close(found, model(*given).detach(), atol=1e-4, rtol=1e-4)
