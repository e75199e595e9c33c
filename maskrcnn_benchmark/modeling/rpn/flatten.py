"""Head outputs in the order of the anchors.

Shapes: N images, A anchors of a cell, D numbers per anchor.
"""

from __future__ import annotations

import torch


def flatten_level(level: torch.Tensor, numbers: int) -> torch.Tensor:
    """A map (N, A D, H, W), channels anchor by anchor, as (N, H W A, D) for D = numbers: row by row, cell by cell."""
    return level.permute(0, 2, 3, 1).reshape(len(level), -1, numbers)


def flatten_levels(levels: list[torch.Tensor], numbers: int) -> torch.Tensor:
    """flatten_level of every map, one after the other: (N, P, D), P anchors of all levels, in float32."""
    return torch.cat([flatten_level(level, numbers) for level in levels], dim=1).float()
