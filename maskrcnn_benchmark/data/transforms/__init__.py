"""Transforms of images and their targets."""

from .build import View, build_test_views, build_transforms
from .transforms import (
    ColorJitter,
    Compose,
    LeaveOut,
    Normalize,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Resize,
    ToTensor,
)

__all__ = [
    "ColorJitter",
    "Compose",
    "LeaveOut",
    "Normalize",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "Resize",
    "ToTensor",
    "View",
    "build_test_views",
    "build_transforms",
]
