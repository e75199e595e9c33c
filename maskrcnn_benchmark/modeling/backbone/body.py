"""What the bodies share: the norm that the config chooses, the maps that they return, and freezing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.norm import get_norm
from maskrcnn_benchmark.modeling.make_layers import group_norm_options


def build_norm(cfg, default: str) -> Callable[[int], nn.Module]:
    """channels -> norm: MODEL.BACKBONE.NORM, or `default` (a name that `get_norm` knows) where that is empty."""
    name = cfg.MODEL.BACKBONE.NORM or default
    options = {
        "GN": group_norm_options(cfg),
        "FrozenBN": {"eps": get_convention(cfg.MODEL.CONVENTION).frozen_norm_eps},
    }
    return partial(get_norm, name, **options.get(name, {}))


def pick_features(asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """`asked` as a tuple.

    Args:
        asked: names of the maps that a body is to return.
        known: names of all its maps, finest first.

    Raises:
        ValueError: `asked` is a single string, is empty, is not in `known`'s order, or has an unknown name.
    """
    if isinstance(asked, str):
        raise ValueError(f"out_features is the string {asked!r}, but must be a list of map names: write ({asked!r},).")
    picked = tuple(name for name in known if name in asked)
    if not picked or picked != tuple(asked):
        raise ValueError(
            f"out_features is {tuple(asked)}; it wants at least one of {tuple(known)}, each once and in this order"
        )
    return picked


def freeze(modules: Iterable[nn.Module]) -> None:
    """Takes the modules out of training: parameters, and the statistics of batch norms."""
    for module in modules:
        module.requires_grad_(False)
        hold_frozen_statistics(module)


def hold_frozen_statistics(body: nn.Module) -> None:
    """Puts the batch norms whose parameters are frozen into eval mode, so that their statistics stay as they are.

    To be called at the end of a body's `train`, too. (The forks' ResNet and VoVNet had only frozen norms and
    GroupNorm; in MobileNetV2 they froze the parameters of a block and let its statistics move on.)
    """
    for module in body.modules():
        if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
            module.eval()
