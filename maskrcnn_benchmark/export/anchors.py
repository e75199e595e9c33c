"""Anchors and locations for feature maps of dynamic size.

Shapes: A anchors of a cell, H x W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.modeling.rpn.anchor_generator import AnchorGenerator, PointGenerator


class Grid(nn.Module):
    """Anchors or points of all levels, as from the generator's `grid_anchors` but without its cache.

    Forward takes L maps (N, C, H_l, W_l) and returns L tensors (H_l W_l A, 4) of boxes, or (H_l W_l, 2) of points.

    Raises:
        NotExportable: the generator is neither an AnchorGenerator nor a PointGenerator.
    """

    def __init__(self, generator: nn.Module):
        super().__init__()
        if type(generator) is AnchorGenerator:
            cells = [cell.detach().clone() for cell in generator.cell_anchors]
        elif type(generator) is PointGenerator:
            cells = [torch.full((1, 2), float(stride // 2)) for stride in generator.strides]
        else:
            raise NotExportable(
                f"anchors of {type(generator).__name__} cannot be exported: maskrcnn_benchmark.export knows "
                "AnchorGenerator and PointGenerator"
            )
        self.strides = generator.strides
        for level, cell in enumerate(cells):
            self.register_buffer(f"cell{level}", cell, persistent=False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [
            self._grid(getattr(self, f"cell{level}"), stride, *maps[level].shape[-2:])
            for level, stride in enumerate(self.strides)
        ]

    def _grid(self, cell: Tensor, stride: int, height: int, width: int) -> Tensor:
        x = (torch.arange(width, device=cell.device) * stride).float()[None, :].expand(height, width)
        y = (torch.arange(height, device=cell.device) * stride).float()[:, None].expand(height, width)
        shifts = torch.stack((x, y) * (cell.shape[1] // 2), dim=-1)
        return (shifts[:, :, None] + cell).reshape(-1, cell.shape[1])
