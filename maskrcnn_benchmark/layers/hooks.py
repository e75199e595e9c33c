"""Whether somebody listens to a module's calls: then it has to be called, and what it returned has to stay as it is."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def is_watched(module: nn.Module) -> bool:
    """Whether the module has hooks of any kind, or all modules have, or its `forward` was replaced."""
    if module._forward_hooks or module._forward_pre_hooks:
        return True
    if torch.compiler.is_compiling():  # a compiler cannot follow what comes behind, and refuses most such modules
        return False
    backward = module._backward_hooks or module._backward_pre_hooks
    return bool(backward) or "forward" in module.__dict__ or _has_any_global_hook()


def any_watched(*modules: nn.Module) -> bool:
    """The same of the modules and of all that is inside them."""
    return any(is_watched(part) for module in modules for part in module.modules())
