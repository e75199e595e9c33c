"""Detect hooks, so that fused paths can fall back."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def has_hooks(module: nn.Module) -> bool:
    """Check for hooks of any kind on this module or global ones, and for a replaced `forward`."""
    own = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(own) or "forward" in module.__dict__ or _has_any_global_hook()


def has_hooks_inside(*modules: nn.Module) -> bool:
    """Check for hooks, as `has_hooks` does, on these modules and on all modules inside them."""
    return any(has_hooks(part) for module in modules for part in module.modules())
