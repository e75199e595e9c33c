"""Measure the time of an image by stage, without counting nested stages twice."""

from __future__ import annotations

import contextlib
import time

import torch
from torch import nn

from maskrcnn_benchmark.fast.compiled import is_compiled

STAGES = ("load", "preprocess", "backbone", "FPN", "heads", "post-processing")

# Stages by module path. Code of the model outside these modules (padding, merging segments) is post-processing.
_BY_PATH = {
    "": "post-processing",
    "backbone": "backbone",
    "backbone.fpn": "FPN",
    "rpn": "heads",
    "roi_heads": "heads",
    "sem_seg_head": "heads",
    "aspp": "heads",
}
# Last parts of the paths of the post-processing modules inside heads.
_SELECTORS = ("post_process", "box_selector_test", "post_processor")


def stage_of(path: str) -> str | None:
    """Return the stage of the module at this path; None if it belongs to the stage of its parent."""
    if path.rpartition(".")[2] in _SELECTORS:
        return "post-processing"
    return _BY_PATH.get(path)


class StageClock:
    """Clock that accumulates the time of each stage. The time of a nested stage does not count for the outer one.

    Args:
        device: device of the model. A GPU is synchronized at every change of stage.

    Attributes:
        seconds: time by stage since `restart`.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.restart()

    def restart(self) -> None:
        """Set the time of all stages to 0."""
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._running: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def stage(self, name: str):
        """Add the time of the `with` block to a stage."""
        self._enter(name)
        try:
            yield
        finally:
            self._leave()

    @contextlib.contextmanager
    def inside(self, model: nn.Module):
        """Divide the time of model calls in the `with` block among stages. A compiled module is not divided."""
        compiled = tuple(f"{path}." for path, module in model.named_modules() if is_compiled(module))
        handles = []
        for path, module in model.named_modules():
            name = stage_of(path)
            if name is not None and not path.startswith(compiled):
                handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._enter(name)))
                handles.append(module.register_forward_hook(lambda *_: self._leave()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> None:
        self._account()
        self._running.append(name)

    def _leave(self) -> None:
        self._account()
        self._running.pop()

    def _account(self) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; return at once for the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
