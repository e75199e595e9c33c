"""Where the time of a picture goes: seconds by stage, nothing counted twice."""

from __future__ import annotations

import contextlib
import time

import torch
from torch import nn

from maskrcnn_benchmark.fast.compiled import is_compiled

STAGES = ("load", "preprocess", "backbone", "FPN", "heads", "post-processing")

# Modules of a model by their path. What a model does outside of them (padding, merging segments) is post-processing.
_BY_PATH = {
    "": "post-processing",
    "backbone": "backbone",
    "backbone.fpn": "FPN",
    "rpn": "heads",
    "roi_heads": "heads",
    "sem_seg_head": "heads",
    "aspp": "heads",
}
# Modules inside of heads by the last part of their path.
_SELECTORS = ("post_process", "box_selector_test", "post_processor")


def stage_of(path: str) -> str | None:
    """The stage that begins with the module at this path of a model; None if it belongs to the one around it."""
    if path.rpartition(".")[2] in _SELECTORS:
        return "post-processing"
    return _BY_PATH.get(path)


class StageClock:
    """Adds up the time of each stage; a stage inside another one takes its time away from the outer one.

    Args:
        device: where the model is; a GPU is waited for at every change of stage.

    `seconds` has the time by stage since `restart`.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.restart()

    def restart(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._running: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def stage(self, name: str):
        """Inside, time belongs to the stage of that name."""
        self._enter(name)
        try:
            yield
        finally:
            self._leave()

    @contextlib.contextmanager
    def inside(self, model: nn.Module):
        """While the context lasts, calls of the model are divided into stages; what is compiled belongs to one."""
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
    """Waits for a GPU; nothing is to be waited for on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
