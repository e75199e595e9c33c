"""Count the multiply-adds of a model, which papers call FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_multiply_adds(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Count multiply-adds by module.

    Convolutions (also deformable ones) and matrix products are counted; norms, activations, pooling and resizing are
    not. One multiply-add is two floating-point operations. A Winograd convolution counts as the direct convolution.

    Args:
        model: model to count.
        run: function that calls `model`. It is called once. Tensors may be on the "meta" device.

    Returns:
        Dict from module paths ("backbone.body", ...) to multiply-adds; "" is the whole model.
    """
    # without oneDNN, because the counter does not support its fused operators in layers/conv.py
    unfused = torch.backends.mkldnn.flags(enabled=False, allow_tf32=None)
    with torch.no_grad(), unfused, FlopCounterMode(display=False, custom_mapping=_own_formulas()) as counter:
        run()
    counts = {name: sum(by_op.values()) // 2 for name, by_op in counter.get_flop_counts().items()}
    # the counter's paths start with the name of the model's class
    paths = {f"{type(model).__name__}.{path}" if path else "Global": path for path, _ in model.named_modules()}
    return {path: counts.get(name, 0) for name, path in paths.items()}


def _own_formulas() -> dict:
    """Return FLOP formulas of the operators that torch's counter lacks."""
    import torchvision.ops  # noqa: F401  (registers the op; the import takes a second)

    formulas = {torch.ops.torchvision.deform_conv2d: _deform_conv_flops}
    ops = torch.ops.maskrcnn_benchmark
    if hasattr(ops, "winograd_conv"):
        formulas |= {ops.winograd_conv: winograd_flops, ops.winograd_chain: winograd_chain_flops}
    return formulas


def _deform_conv_flops(input_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(out_shape) * math.prod(weight_shape[1:])


def winograd_flops(input_shape, *args, out_shape=None, **kwargs) -> int:
    """Return the FLOPs of the direct 3x3 convolution that `winograd_conv` replaces."""
    return 2 * math.prod(out_shape) * input_shape[1] * 9


def winograd_chain_flops(input_shape, weight_shapes, bias_shapes, **kwargs) -> int:
    """Return the FLOPs of the direct 3x3 convolutions that `winograd_chain` replaces."""
    channels = [input_shape[1], *(filters for (filters,) in bias_shapes)]
    pairs = zip(channels, channels[1:], strict=False)
    return 2 * input_shape[0] * math.prod(input_shape[2:]) * 9 * sum(inputs * filters for inputs, filters in pairs)
