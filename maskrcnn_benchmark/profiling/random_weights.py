"""Make randomly initialized models realistic: normal activations, and as many detections as trained ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d

HALVINGS = 20


@torch.no_grad()
def set_statistics(model: nn.Module, run: Callable[[], object]) -> None:
    """Set the statistics of batch norms to those of their inputs.

    Without this, the activations of a deep body with random weights grow to infinity.

    Args:
        model: model in eval mode, whose norms are not folded.
        run: function that calls the model.
    """

    def measure(norm, args):
        (x,) = args
        if x.numel() == x.shape[1]:  # the mean of one image has no variance
            return
        norm.running_mean.copy_(x.mean(dim=(0, 2, 3)))
        norm.running_var.copy_(x.var(dim=(0, 2, 3), correction=0).clamp(min=1e-6))

    norms = [module for module in model.modules() if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d))]
    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        if norms:
            run()
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def set_score_thresholds(model: nn.Module, run: Callable[[], object], wanted: int) -> None:
    """Set the score threshold of the post-processing so that about `wanted` detections remain.

    The thresholds of configs are meant for trained models. With random weights, no location or every location exceeds
    them.

    Args:
        model: model in eval mode.
        run: function that calls the model.
        wanted: number of detections in all images of the call.
    """
    calls = {}
    selectors = [module for module in model.modules() if hasattr(module, "score_thresh")]
    handles = [
        module.register_forward_pre_hook(lambda module, args: calls.update({module: args})) for module in selectors
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    for selector, args in calls.items():
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            selector.score_thresh = (low + high) / 2
            found = sum(len(boxes) for boxes in selector(*args))
            if found >= wanted:
                low = selector.score_thresh
            else:
                high = selector.score_thresh
        selector.score_thresh = low
