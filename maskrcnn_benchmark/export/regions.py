"""Regions of interest with fixed shapes, and the poolers that read them.

Shapes: N images, D slots for regions of an image, R rows: the slots that are computed, of all images together.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.export.ops import pool_levels
from maskrcnn_benchmark.modeling.poolers import AdaptiveLevelMapper, Pooler, to_far_side


class Regions(NamedTuple):
    """Input of poolers in place of BoxLists.

    Attributes:
        rois: (R, 5) image index, x1, y1, x2, y2.
        image_areas: (R,) area of each region's image in pixels.
    """

    rois: Tensor
    image_areas: Tensor


class Rows:
    """Mapping between slots (N, D) and the rows (R,) that are computed for them.

    Args:
        used: (N, D) bool.
        all_places: compute all slots, so that no shape depends on data.

    Attributes:
        index: (R,) indices of slots among N D. These are all slots with all_places. Otherwise they are the used slots,
            then slot 0 again, so that R is at least 1.
    """

    def __init__(self, used: Tensor, all_places: bool = False):
        self.shape = used.shape
        flat = used.flatten()
        if all_places:
            self.index = torch.arange(flat.shape[0], device=used.device)
        else:
            self.index = torch.cat((flat.nonzero().squeeze(1), torch.zeros(1, dtype=torch.int64, device=used.device)))

    def gather(self, values: Tensor) -> Tensor:
        """Select the rows: (N, D, ...) -> (R, ...)."""
        return values.flatten(0, 1)[self.index]

    def spread(self, values: Tensor) -> Tensor:
        """Scatter the rows: (R, ...) -> (N, D, ...), with 0 in slots that are not computed."""
        count = self.shape[0] * self.shape[1]
        spread = values.new_zeros((count, *values.shape[1:])).index_put((self.index,), values)
        return spread.reshape(*self.shape, *values.shape[1:])

    def regions(self, boxes: Tensor, sizes: Tensor) -> Regions:
        """Make Regions from boxes (N, D, 4) in images of sizes (N, 2), (height, width)."""
        image = self.index // self.shape[1]
        rois = torch.cat((image[:, None].to(boxes.dtype), self.gather(boxes)), dim=1)
        return Regions(rois, sizes.prod(dim=1)[image].to(boxes.dtype))


class RoiPooler(nn.Module):
    """Pooler that takes Regions in place of BoxLists."""

    def __init__(self, pooler: Pooler):
        super().__init__()
        self.pooler = pooler

    def forward(self, features: list[Tensor], regions: Regions) -> Tensor:
        pooler, rois = self.pooler, regions.rois
        maps = [level.contiguous() for level in features[: len(pooler.scales)]]
        if len(maps) > 1 and isinstance(pooler.map_levels, AdaptiveLevelMapper):
            levels = pooler.map_levels.of_boxes(rois[:, 1:], regions.image_areas)
        elif len(maps) > 1:
            levels = pooler.map_levels.of_boxes(rois[:, 1:])
        else:
            levels = torch.zeros_like(rois[:, 0], dtype=torch.int64)
        if pooler.placement == "inclusive":
            rois = to_far_side(rois, pooler.map_scales[levels])
        size = pooler.output_size
        height, width = (size, size) if isinstance(size, int) else size
        return pool_levels(
            maps, rois, levels, list(pooler.scales), height, width, pooler.sampling_ratio, pooler.aligned
        )


def with_roi_poolers(module: nn.Module) -> nn.Module:
    """Copy a module with a RoiPooler in place of each Pooler.

    Raises:
        NotExportable: a pooler is of a subclass of Pooler.
    """
    module = copy.deepcopy(module)
    poolers: dict[int, RoiPooler] = {}  # a shared one stays shared
    for name, part in list(module.named_modules(remove_duplicate=False)):
        if not isinstance(part, Pooler):
            continue
        if type(part) is not Pooler:
            raise NotExportable(f"{name} is a {type(part).__name__}, a pooler without an exportable form")
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, poolers.setdefault(id(part), RoiPooler(part)))
    return module
