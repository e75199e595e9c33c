"""Deformable convolution for runtimes without ONNX's DeformConv: GridSample at the offsets, then a 1x1 convolution.

Shapes: N images, C channels, G groups of offsets, T taps of the kernel, H x W the output.
"""

from __future__ import annotations

import torch


def onnx_translations() -> dict:
    """Return the translation table of torch.onnx.export; needs the packages onnxscript and torchvision.

    GridSample treats pixels outside the map as 0, as the op does. The channels of an offset group share their sampling
    locations, so the groups are folded into the batch dimension.
    """
    import torchvision.ops  # noqa: F401  registers the op
    from onnxscript import FLOAT
    from onnxscript import opset20 as op

    def constant(*numbers):
        return op.Constant(value_ints=list(numbers))

    def deform_in_samples(
        x,
        weight,
        offset,
        mask,
        bias,
        stride_h: int,
        stride_w: int,
        pad_h: int,
        pad_w: int,
        dilation_h: int,
        dilation_w: int,
        groups: int,
        offset_groups: int,
        use_mask: bool,
    ):
        rows, columns = weight.shape[2], weight.shape[3]
        taps = rows * columns
        height, width = (op.Shape(offset, start=side, end=side + 1) for side in (2, 3))
        # (N G, T, 2, H, W): offsets (y, x) of each tap from its place in a regular convolution
        moves = op.Reshape(offset, op.Concat(constant(-1, taps, 2), height, width, axis=0))

        def places(axis, length, stride, pad, dilation, steps, size):
            """Return (N G, T, H, W) coordinates of GridSample: -1 and 1 are the outer edges of the map."""
            first = [step * dilation - pad for step in steps]
            first = op.Reshape(op.Constant(value_floats=[float(each) for each in first]), constant(1, taps, 1, 1))
            zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
            number = op.Cast(op.Range(zero, op.Squeeze(length), one), to=FLOAT.dtype)
            number = op.Mul(number, op.Constant(value_float=float(stride)))
            number = op.Reshape(number, constant(*((1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1))))
            move = op.Gather(moves, op.Constant(value_int=axis), axis=2)
            place = op.Add(op.Add(first, number), move)
            doubled = op.Add(op.Add(place, place), op.Constant(value_float=1.0))
            return op.Sub(op.Div(doubled, op.Cast(size, to=FLOAT.dtype)), op.Constant(value_float=1.0))

        sizes = [op.Shape(x, start=side, end=side + 1) for side in (2, 3)]
        tap_rows = [tap // columns for tap in range(taps)]
        tap_columns = [tap % columns for tap in range(taps)]
        down = places(0, height, stride_h, pad_h, dilation_h, tap_rows, sizes[0])
        across = places(1, width, stride_w, pad_w, dilation_w, tap_columns, sizes[1])
        last = constant(-1)
        grid = op.Concat(op.Unsqueeze(across, last), op.Unsqueeze(down, last), axis=-1)
        lines = op.Mul(constant(taps), height)
        grid = op.Reshape(grid, op.Concat(constant(-1), lines, width, constant(2), axis=0))
        channels = x.shape[1] // offset_groups
        maps = op.Reshape(x, op.Concat(constant(-1, channels), *sizes, axis=0))
        samples = op.GridSample(maps, grid, mode="linear", padding_mode="zeros", align_corners=0)
        if use_mask:
            samples = op.Mul(samples, op.Reshape(mask, op.Concat(constant(-1, 1), lines, width, axis=0)))
        # (N G, C / G, T H, W) to (N, C T, H, W)
        samples = op.Reshape(samples, op.Concat(constant(-1, x.shape[1] * taps), height, width, axis=0))
        kernel = op.Reshape(weight, constant(weight.shape[0], -1, 1, 1))
        return op.Conv(samples, kernel, bias, group=groups)

    return {torch.ops.torchvision.deform_conv2d.default: deform_in_samples}
