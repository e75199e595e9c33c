"""Pool region features from the FPN level that matches each region's size.

The levels are those of FPN (Lin et al., CVPR 2017, section 4.2) or of CenterMask (Lee & Park, CVPR 2020, section 3.3).

Shapes: N images, L levels, C channels, R regions of all images together, P x Q bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.roi_align import multilevel_roi_align
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxes import box_area

PLACEMENTS = ("clamped", "aligned", "inclusive")


class LevelMapper:
    """Assign regions to levels (equation 1): floor(canonical_level + log2(side / canonical_scale + eps)).

    Args:
        k_min, k_max: finest and coarsest level; level k has stride 2**k.
        canonical_scale: square root of the area, in pixels of the network input, of a region on canonical_level.
        canonical_level: the level of a region of size canonical_scale.
        eps: keeps the logarithm finite for an empty region, and assigns a region on the boundary between two levels
            to the coarser one.
        box_offset: see Convention.
    """

    def __init__(self, k_min, k_max, canonical_scale=224, canonical_level=4, eps=1e-6, box_offset=1.0):
        self.k_min = k_min
        self.k_max = k_max
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level
        self.eps = eps
        self.box_offset = box_offset

    def __call__(self, boxlists: list[BoxList]) -> Tensor:
        """Return the levels (R,) int64 of the boxes of N lists, counted from 0 = k_min."""
        return self.of_boxes(torch.cat([boxlist.convert("xyxy").bbox for boxlist in boxlists]))

    def of_boxes(self, boxes: Tensor) -> Tensor:
        """Return the levels (R,) of boxes (R, 4), xyxy."""
        area = box_area(boxes, self.box_offset)
        level = torch.floor(self.canonical_level + torch.log2(area.sqrt() / self.canonical_scale + self.eps))
        # A diverged model's NaN must not become an index.
        return level.nan_to_num(self.k_min).clamp(self.k_min, self.k_max).to(torch.int64) - self.k_min


class AdaptiveLevelMapper:
    """Assign regions to levels by their share of the image: ceil(k_max - log2(image area / region area + eps)).

    Equation 2 of CenterMask. A region of more than half of the image is on k_max, one of more than a quarter on the
    level below, and so on.

    Args:
        k_min, k_max, box_offset: as LevelMapper.
        eps: assigns a region just above half of the image, or above a quarter, to the finer level.
    """

    def __init__(self, k_min, k_max, eps=1e-6, box_offset=1.0):
        self.k_min = k_min
        self.k_max = k_max
        self.eps = eps
        self.box_offset = box_offset

    def __call__(self, boxlists: list[BoxList]) -> Tensor:
        """Return the levels (R,) int64 of the boxes of N lists, counted from 0 = k_min.

        The image area is that of `BoxList.size`: without padding.
        """
        boxes = [boxlist.convert("xyxy").bbox for boxlist in boxlists]
        areas = [
            of_image.new_full((len(of_image),), boxlist.size[0] * boxlist.size[1])
            for of_image, boxlist in zip(boxes, boxlists, strict=True)
        ]
        return self.of_boxes(torch.cat(boxes), torch.cat(areas))

    def of_boxes(self, boxes: Tensor, image_areas: Tensor) -> Tensor:
        """Return the levels (R,) of boxes (R, 4), xyxy, in images of these areas (R,)."""
        ratio = image_areas / box_area(boxes, self.box_offset)
        level = torch.ceil(self.k_max - torch.log2(ratio + self.eps))
        # A box of negative area, or a diverged model's NaN, must not become an index.
        return level.nan_to_num(self.k_min).clamp(self.k_min, self.k_max).to(torch.int64) - self.k_min


class Pooler(nn.Module):
    """ROIAlign on one map, or on the matching one of several.

    Args:
        output_size: bins (P, Q), or one number for both.
        scales: pixels of the map per pixel of the network input, one scale for each map, finest first.
        sampling_ratio: samples per bin and axis; 0 is adaptive.
        placement: "clamped", "aligned" or "inclusive", see Convention.roi_placement.
        box_offset, level_eps: see Convention.
        by_share: AdaptiveLevelMapper selects the map, instead of LevelMapper.

    Forward takes at least L = len(scales) maps (N, C, H_l, W_l), of which it reads the first L, and N BoxLists.
    It returns (R, C, P, Q) in the order of the boxes.

    Raises:
        ValueError: there are fewer maps than scales, or the placement is unknown.
    """

    def __init__(
        self,
        output_size,
        scales,
        sampling_ratio,
        placement="clamped",
        box_offset=1.0,
        level_eps=1e-6,
        by_share=False,
    ):
        super().__init__()
        if placement not in PLACEMENTS:
            known = ", ".join(map(repr, PLACEMENTS))
            raise ValueError(f"placement is {placement!r}; expected one of {known}")
        self.output_size = output_size
        self.scales = tuple(scales)
        self.register_buffer("map_scales", torch.tensor(self.scales), persistent=False)
        self.sampling_ratio = sampling_ratio
        self.placement = placement
        self.aligned = placement != "clamped"
        k_min, k_max = (round(-math.log2(scale)) for scale in (scales[0], scales[-1]))
        mapper = AdaptiveLevelMapper if by_share else LevelMapper
        self.map_levels = mapper(k_min, k_max, eps=level_eps, box_offset=box_offset)

    def forward(self, features: list[Tensor], boxlists: list[BoxList]) -> Tensor:
        if len(features) < len(self.scales):
            raise ValueError(
                f"expected at least {len(self.scales)} feature maps to pool from, one for each scale in POOLER_SCALES, "
                f"got {len(features)}; shorten POOLER_SCALES or return more maps from the backbone"
            )
        maps = features[: len(self.scales)]
        levels = self.map_levels(boxlists) if len(maps) > 1 else None
        rois = boxes_with_image_index(boxlists)
        if self.placement == "inclusive":
            rois = to_far_side(rois, self.map_scales if levels is None else self.map_scales[levels])
        return multilevel_roi_align(
            maps, rois, levels, self.output_size, self.scales, self.sampling_ratio, self.aligned
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, scales={self.scales}, sampling_ratio={self.sampling_ratio}, "
            f"placement={self.placement!r}"
        )


def to_far_side(rois: Tensor, scales: Tensor) -> Tensor:
    """Convert inclusive regions (R, 5) so that an aligned ROIAlign reads from x1 * scale to (x2 + 1) * scale.

    Args:
        scales: (R,), the scale of each region's map; or (1,) for all regions.
    """
    half = 0.5 / scales[:, None]  # an aligned ROIAlign subtracts half a pixel of the map
    near = rois[:, 1:3] + half
    return torch.cat((rois[:, :1], near, torch.maximum(rois[:, 3:] + 1 + half, near)), dim=1)


def boxes_with_image_index(boxlists: list[BoxList]) -> Tensor:
    """Concatenate the boxes of N lists as (R, 5): image index, x1, y1, x2, y2."""
    return torch.cat(
        [
            torch.cat((boxlist.bbox.new_full((len(boxlist), 1), i), boxlist.convert("xyxy").bbox), dim=1)
            for i, boxlist in enumerate(boxlists)
        ]
    )


def make_pooler(cfg, head_name: str) -> Pooler:
    """Build the pooler that MODEL.<head_name> (ROI_BOX_HEAD, ROI_MASK_HEAD, ...) describes."""
    node = cfg.MODEL[head_name]
    convention = get_convention(cfg.MODEL.CONVENTION)
    return Pooler(
        output_size=(node.POOLER_RESOLUTION, node.POOLER_RESOLUTION),
        scales=node.POOLER_SCALES,
        sampling_ratio=node.POOLER_SAMPLING_RATIO,
        placement=convention.roi_placement,
        box_offset=convention.box_offset,
        level_eps=convention.level_eps,
        by_share=node.LEVEL_MAP_FUNCTION == "CenterMaskLevelMapFunc",
    )
