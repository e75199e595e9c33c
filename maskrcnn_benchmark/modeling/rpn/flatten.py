"""Reshape head outputs to the order of the anchors.

Shapes: N images, A anchors of a cell, D numbers per anchor.
"""

from __future__ import annotations

import torch


def flatten_level(level: torch.Tensor, numbers: int) -> torch.Tensor:
    """Reshape a map (N, A D, H, W), channels grouped by anchor, to (N, H W A, D) for D = numbers, row by row."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, numbers)


def flatten_levels(levels: list[torch.Tensor], numbers: int) -> torch.Tensor:
    """Flatten and concatenate all maps: (N, P, D) in float32, P anchors of all levels."""
    return torch.cat([flatten_level(level, numbers) for level in levels], dim=1).float()
