"""Optimizers and learning-rate schedules."""

from .build import make_lr_scheduler, make_optimizer
from .lr_scheduler import WarmupCosineLR, WarmupMultiStepLR, WarmupPolyLR

__all__ = ["WarmupCosineLR", "WarmupMultiStepLR", "WarmupPolyLR", "make_lr_scheduler", "make_optimizer"]
