"""Counting the multiply-adds of a model: what papers call its FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_multiply_adds(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Multiply-adds by module path ("backbone.body", ...); those of the whole model under "".

    Convolutions, deformable ones too, and matrix products count; norms, activations, pooling and resizing do not. One
    multiply-add is two floating-point operations. Winograd's convolutions count as the ordinary ones that they replace.

    Args:
        run: calls `model`; it is called once. Tensors may be on the "meta" device.
    """
    # the counter does not know the fused operators of layers/conv.py, which need oneDNN
    unfused = torch.backends.mkldnn.flags(enabled=False, allow_tf32=None)
    with torch.no_grad(), unfused, FlopCounterMode(display=False, custom_mapping=_own_formulas()) as counter:
        run()
    counts = {name: sum(by_op.values()) // 2 for name, by_op in counter.get_flop_counts().items()}
    # the counter's paths begin with the name of the model's class
    paths = {f"{type(model).__name__}.{path}" if path else "Global": path for path, _ in model.named_modules()}
    return {path: counts.get(name, 0) for name, path in paths.items()}


def _own_formulas() -> dict:
    """For the operators that torch has none for."""
    import torchvision.ops  # noqa: F401  (brings the op; a second to import)

    formulas = {torch.ops.torchvision.deform_conv2d: _deform_conv_flops}
    ops = torch.ops.maskrcnn_benchmark
    if hasattr(ops, "winograd_conv"):
        formulas |= {ops.winograd_conv: winograd_flops, ops.winograd_chain: winograd_chain_flops}
    return formulas


def _deform_conv_flops(input_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(out_shape) * math.prod(weight_shape[1:])


def winograd_flops(input_shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(out_shape) * input_shape[1] * 9


def winograd_chain_flops(input_shape, weight_shapes, bias_shapes, **kwargs) -> int:
    channels = [input_shape[1], *(filters for (filters,) in bias_shapes)]
    pairs = zip(channels, channels[1:], strict=False)
    return 2 * input_shape[0] * math.prod(input_shape[2:]) * 9 * sum(inputs * filters for inputs, filters in pairs)
