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
    multiply-add is two floating-point operations.

    Args:
        run: calls `model`; it is called once. Tensors may be on the "meta" device.
    """
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_deformable()) as counter:
        run()
    counts = {name: sum(by_op.values()) // 2 for name, by_op in counter.get_flop_counts().items()}
    # the counter's paths begin with the name of the model's class
    paths = {f"{type(model).__name__}.{path}" if path else "Global": path for path, _ in model.named_modules()}
    return {path: counts.get(name, 0) for name, path in paths.items()}


def _deformable() -> dict:
    """The formula for deformable convolutions, of which torch has none."""
    import torchvision.ops  # noqa: F401  (brings the op; a second to import)

    return {torch.ops.torchvision.deform_conv2d: _deform_conv_flops}


def _deform_conv_flops(input_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(out_shape) * math.prod(weight_shape[1:])
