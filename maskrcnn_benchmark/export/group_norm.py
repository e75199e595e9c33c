"""Export group normalization to ONNX with PyTorch's accuracy.

By default the exporter uses InstanceNormalization, which sums a map in few float32 accumulators. Where much of the map
is padding, equal values are rounded the same way each time: scores change by 1e-4 and boxes by hundredths of a pixel.
Here each row is summed first, and then the sums of the rows.
"""

from __future__ import annotations

import torch


def onnx_translations() -> dict:
    """Return the translation table of torch.onnx.export; needs the package onnxscript."""
    from onnxscript import FLOAT
    from onnxscript import opset20 as op

    def constant(*numbers):
        return op.Constant(value_ints=list(numbers))

    def group_norm_in_onnx(x, num_groups: int, weight=None, bias=None, eps: float = 1e-5, cudnn_enabled: bool = True):
        width = op.Shape(x, start=-1)
        count = op.Cast(width, to=FLOAT.dtype)

        def mean(values):
            """Return the mean (N, G, 1, 1) of (N, G, rows, W)."""
            # not ReduceMean of ReduceMean, which OpenVINO fuses into one
            of_lines = op.ReduceSum(values, constant(3), keepdims=0)
            return op.Unsqueeze(op.Div(op.ReduceMean(of_lines, constant(2), keepdims=1), count), constant(3))

        lines = op.Reshape(x, op.Concat(constant(0, num_groups, -1), width, axis=0))
        centered = op.Sub(lines, mean(lines))
        variance = mean(op.Mul(centered, centered))
        scale = op.Reciprocal(op.Sqrt(op.Add(variance, op.Constant(value_float=float(eps)))))
        # (N, G, channels of the group, H W), so that weight and scale are multiplied before the map
        result = op.Reshape(centered, constant(0, num_groups, x.shape[1] // num_groups, -1))
        of_channel = constant(1, num_groups, x.shape[1] // num_groups, 1)
        result = op.Mul(result, scale if weight is None else op.Mul(scale, op.Reshape(weight, of_channel)))
        if bias is not None:
            result = op.Add(result, op.Reshape(bias, of_channel))
        return op.Reshape(result, op.Shape(x))

    return {torch.ops.aten.group_norm.default: group_norm_in_onnx}
