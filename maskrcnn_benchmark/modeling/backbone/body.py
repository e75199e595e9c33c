"""Norms, feature selection, dilation and freezing shared by the bodies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.norm import get_norm
from maskrcnn_benchmark.modeling.make_layers import group_norm_options


def build_norm(cfg, default: str) -> Callable[[int], nn.Module]:
    """Return a factory channels -> norm for MODEL.BACKBONE.NORM, or for `default` if that is empty (see `get_norm`)."""
    node = cfg.MODEL.BACKBONE
    name = node.NORM or default
    options = {
        "GN": group_norm_options(cfg),
        "FrozenBN": {"eps": get_convention(cfg.MODEL.CONVENTION).frozen_norm_eps},
    }.get(name, {"momentum": node.NORM_MOMENTUM})
    if node.NORM_EPS >= 0 and name != "GN":
        options["eps"] = node.NORM_EPS
    return partial(get_norm, name, **options)


def dilated_strides(strides: Sequence[int], output_stride: int) -> list[tuple[int, int]]:
    """Trade the strides beyond `output_stride` for dilation (DeepLab, Chen et al., TPAMI 2017, section 3.1).

    >>> dilated_strides((4, 1, 2, 2, 2), output_stride=8)
    [(4, 1), (1, 1), (2, 1), (1, 2), (1, 4)]

    Args:
        strides: strides of the body's parts in order, beginning with the stem.
        output_stride: pixels of the input per point of the last map; 32 keeps all strides.

    Returns:
        The stride and the dilation of every part.

    Raises:
        ValueError: output_stride is not 4, 8, 16 or 32.
    """
    if output_stride not in (4, 8, 16, 32):
        raise ValueError(f"output_stride is {output_stride!r}; expected 4, 8, 16 or 32 (MODEL.BACKBONE.OUTPUT_STRIDE)")
    parts, reached, dilation = [], 1, 1
    for stride in strides:
        if reached * stride > output_stride:
            dilation, stride = dilation * stride, 1
        reached *= stride
        parts.append((stride, dilation))
    return parts


def as_backbone(body: nn.Module) -> nn.Sequential:
    """Return the body as a backbone with all its maps. `out_channels` is that of the last one."""
    backbone = nn.Sequential(OrderedDict(body=body))
    backbone.out_channels = body.out_channels[-1]
    return backbone


def pick_features(asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Validate the names of requested maps and return them as a tuple.

    Args:
        asked: names of the maps that a body returns.
        known: names of all its maps, finest first.

    Raises:
        ValueError: `asked` is a single string, is empty, is not in the order of `known`, or has an unknown name.
    """
    if isinstance(asked, str):
        raise ValueError(f"out_features is the string {asked!r}; expected a list of map names: write ({asked!r},).")
    picked = tuple(name for name in known if name in asked)
    if not picked or picked != tuple(asked):
        raise ValueError(
            f"out_features is {tuple(asked)}; expected at least one of {tuple(known)}, each once and in this order"
        )
    return picked


def freeze(modules: Iterable[nn.Module]) -> None:
    """Freeze modules: parameters, and the statistics of batch norms."""
    for module in modules:
        module.requires_grad_(False)
        hold_frozen_statistics(module)


def hold_frozen_statistics(body: nn.Module) -> None:
    """Put batch norms with frozen parameters into eval mode, so that their statistics stay fixed.

    A body's `train` calls this at its end. The forks' ResNet and VoVNet had only frozen norms and GroupNorm. Their
    MobileNetV2 froze the parameters of a block, but its statistics continued to change.
    """
    for module in body.modules():
        if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
            module.eval()
