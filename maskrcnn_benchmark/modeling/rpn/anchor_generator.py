"""Generate anchors: boxes of several sizes and shapes in every cell of a feature map (Faster R-CNN, section 3.1.1).

Shapes: N images, L levels, A anchors of a cell, H_l x W_l the map of level l, P_l = H_l W_l A its anchors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.structures.bounding_box import BoxList

ROUNDINGS = ("sides", "corners", "none")


def cell_anchors(
    stride: float,
    sizes,
    aspect_ratios,
    rounding: str = "sides",
    at_cell_center: bool = True,
    box_offset: float = 1.0,
) -> torch.Tensor:
    """Return the anchors (A, 4) float32 of the cell at the origin, xyxy in pixels; all sizes of a ratio are adjacent.

    Args:
        stride: side of a cell in pixels of the network input.
        sizes: square roots of the anchors' areas, in pixels.
        aspect_ratios: heights divided by widths.
        rounding, at_cell_center, box_offset: anchor_rounding, anchor_at_cell_center and box_offset of Convention.

    Raises:
        ValueError: rounding is not "sides", "corners" or "none".
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"anchor rounding is {rounding!r}; expected one of {', '.join(map(repr, ROUNDINGS))}")
    ratios = np.asarray(aspect_ratios, dtype=np.float64)
    scales = np.asarray(sizes, dtype=np.float64) / stride
    widths = stride / np.sqrt(ratios)
    if rounding == "sides":
        widths = np.round(widths)
        heights = np.round(widths * ratios)
    else:
        heights = widths * ratios
    half_widths = (np.outer(widths, scales).ravel() - box_offset) / 2
    half_heights = (np.outer(heights, scales).ravel() - box_offset) / 2
    center = (stride - box_offset) / 2 if at_cell_center else 0.0
    corners = np.stack(
        (center - half_widths, center - half_heights, center + half_widths, center + half_heights), axis=1
    )
    if rounding == "corners":
        corners = np.round(corners)
    return torch.tensor(corners.tolist(), dtype=torch.float32)


class BufferList(nn.Module):
    """Register a list of tensors as buffers "0", "1", ..., so that checkpoints contain them."""

    def __init__(self, buffers=None):
        super().__init__()
        self.extend(buffers or ())

    def extend(self, buffers) -> BufferList:
        for buffer in buffers:
            self.register_buffer(str(len(self)), buffer)
        return self

    def __len__(self) -> int:
        return len(self._buffers)

    def __iter__(self):
        return iter(self._buffers.values())


class AnchorGenerator(nn.Module):
    """Place each level's cell anchors at every cell of its map.

    Args:
        sizes: with one stride, the anchor sizes of the one level; otherwise one size, or a tuple of sizes, per level.
        aspect_ratios: aspect ratios of every level.
        anchor_strides: stride of each level in pixels of the network input.
        straddle_thresh: an anchor is visible if it exceeds its image by at most this many pixels; negative: always.
        rounding, at_cell_center, box_offset: see cell_anchors.

    Forward takes an ImageList and L maps. It returns, per image, L BoxLists of P_l anchors with the field "visibility"
    (P_l,) bool. Anchors run row by row, cell by cell, and within a cell in the order of cell_anchors.

    Raises:
        ValueError: the numbers of sizes and strides disagree.
    """

    def __init__(
        self,
        sizes=(128, 256, 512),
        aspect_ratios=(0.5, 1.0, 2.0),
        anchor_strides=(8, 16, 32),
        straddle_thresh: float = 0,
        rounding: str = "sides",
        at_cell_center: bool = True,
        box_offset: float = 1.0,
    ):
        super().__init__()
        if len(anchor_strides) == 1:
            sizes = (sizes,)
        if len(sizes) != len(anchor_strides):
            raise ValueError(
                f"anchors on {len(anchor_strides)} levels (strides {tuple(anchor_strides)}) require one size per "
                f"level, got {tuple(sizes)}"
            )
        self.strides = tuple(anchor_strides)
        self.box_offset = box_offset
        self.straddle_thresh = straddle_thresh
        self.cell_anchors = BufferList(
            [
                cell_anchors(stride, np.atleast_1d(size), aspect_ratios, rounding, at_cell_center, box_offset)
                for stride, size in zip(self.strides, sizes, strict=True)
            ]
        )
        # per level: the map's size, the cell anchors with their version counter, and the cached grid
        self._latest: dict[int, tuple] = {}

    def num_anchors_per_location(self) -> list[int]:
        """Return A of every level."""
        return [len(anchors) for anchors in self.cell_anchors]

    def grid_anchors(self, grid_sizes) -> list[torch.Tensor]:
        """Return L tensors (P_l, 4) for L maps of sizes (H_l, W_l). They are cached: do not modify them in place.

        Raises:
            ValueError: the number of maps is not L.
        """
        if len(grid_sizes) != len(self.strides):
            raise ValueError(
                f"there are anchors for {len(self.strides)} maps (strides {self.strides}), but the backbone returned "
                f"{len(grid_sizes)}; ANCHOR_SIZES and ANCHOR_STRIDE(S) require one entry per map of the backbone"
            )
        return [self._grid(level, *size) for level, size in enumerate(grid_sizes)]

    def _grid(self, level, height, width):
        cell, stride = getattr(self.cell_anchors, str(level)), self.strides[level]
        # Loading a checkpoint writes into the buffer. Tensors made in inference mode have no version counter.
        version = None if cell.is_inference() else cell._version
        source = (int(height), int(width), version)
        known = self._latest.get(level)
        if known is not None and known[0] == source and known[1] is cell:
            return known[2]
        x = torch.arange(0, width * stride, stride, dtype=torch.float32, device=cell.device)
        y = torch.arange(0, height * stride, stride, dtype=torch.float32, device=cell.device)
        y, x = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack((x, y, x, y), dim=-1)
        grid = (shifts[:, :, None] + cell.float()).reshape(-1, 4)
        self._latest[level] = (source, cell, grid)
        return grid

    def visible(self, anchors: torch.Tensor, image_size) -> torch.Tensor:
        """Return the mask (P,) of the anchors (P, 4) that are visible in an image of unpadded size (height, width)."""
        reach = self.straddle_thresh
        if reach < 0:
            return torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
        height, width = image_size
        x1, y1, x2, y2 = anchors.unbind(dim=1)
        return (x1 >= -reach) & (y1 >= -reach) & (x2 < width + reach) & (y2 < height + reach)

    def forward(self, image_list, feature_maps) -> list[list[BoxList]]:
        levels = self.grid_anchors([feature.shape[-2:] for feature in feature_maps])
        anchors = []
        for height, width in image_list.image_sizes:
            boxlists = [BoxList(boxes, (int(width), int(height)), box_offset=self.box_offset) for boxes in levels]
            for boxlist in boxlists:
                boxlist.add_field("visibility", self.visible(boxlist.bbox, (height, width)))
            anchors.append(boxlists)
        return anchors


class PointGenerator(nn.Module):
    """Place one point in every cell of each level's map, at cell * stride + stride // 2 (FCOS, section 3.1).

    Args:
        strides: stride of each level in pixels of the network input.
    """

    def __init__(self, strides: Sequence[int]):
        super().__init__()
        self.strides = tuple(strides)
        self.register_buffer("_device", torch.empty(0), persistent=False)

    def grid_anchors(self, grid_sizes) -> list[torch.Tensor]:
        """Return L tensors (P_l, 2) of (x, y) for L maps of sizes (H_l, W_l), row by row.

        Raises:
            ValueError: the number of maps is not L.
        """
        if len(grid_sizes) != len(self.strides):
            raise ValueError(
                f"MODEL.FCOS.FPN_STRIDES is {self.strides}, but the backbone returned {len(grid_sizes)} maps; give one "
                "stride per map"
            )
        return [self._grid(*size, stride) for size, stride in zip(grid_sizes, self.strides, strict=True)]

    def _grid(self, height: int, width: int, stride: int) -> torch.Tensor:
        device = self._device.device
        x = torch.arange(0, width * stride, stride, dtype=torch.float32, device=device) + stride // 2
        y = torch.arange(0, height * stride, stride, dtype=torch.float32, device=device) + stride // 2
        y, x = torch.meshgrid(y, x, indexing="ij")
        return torch.stack((x.reshape(-1), y.reshape(-1)), dim=1)


def _convention_options(cfg):
    convention = get_convention(cfg.MODEL.CONVENTION)
    return {
        "rounding": convention.anchor_rounding,
        "at_cell_center": convention.anchor_at_cell_center,
        "box_offset": convention.box_offset,
    }


def make_anchor_generator(cfg) -> AnchorGenerator:
    """Build RPN's anchors: with MODEL.RPN.USE_FPN one size per level, otherwise all sizes on one level."""
    rpn = cfg.MODEL.RPN
    if not rpn.USE_FPN and len(rpn.ANCHOR_STRIDE) != 1:
        raise ValueError(
            f"MODEL.RPN.ANCHOR_STRIDE is {tuple(rpn.ANCHOR_STRIDE)}; without MODEL.RPN.USE_FPN there is one map, so "
            "give one stride"
        )
    if rpn.USE_FPN and len(rpn.ANCHOR_STRIDE) != len(rpn.ANCHOR_SIZES):
        raise ValueError(
            f"MODEL.RPN.ANCHOR_STRIDE is {tuple(rpn.ANCHOR_STRIDE)} and MODEL.RPN.ANCHOR_SIZES is "
            f"{tuple(rpn.ANCHOR_SIZES)}; with MODEL.RPN.USE_FPN each requires one entry per level"
        )
    return AnchorGenerator(
        rpn.ANCHOR_SIZES, rpn.ASPECT_RATIOS, rpn.ANCHOR_STRIDE, rpn.STRADDLE_THRESH, **_convention_options(cfg)
    )


def make_anchor_generator_retinanet(cfg) -> AnchorGenerator:
    """Build RetinaNet's anchors: MODEL.RETINANET.SCALES_PER_OCTAVE sizes per level, in equal steps of one OCTAVE."""
    retinanet = cfg.MODEL.RETINANET
    if len(retinanet.ANCHOR_STRIDES) != len(retinanet.ANCHOR_SIZES):
        raise ValueError(
            f"MODEL.RETINANET.ANCHOR_STRIDES is {tuple(retinanet.ANCHOR_STRIDES)} and MODEL.RETINANET.ANCHOR_SIZES is "
            f"{tuple(retinanet.ANCHOR_SIZES)}; each requires one entry per level"
        )
    factors = [retinanet.OCTAVE ** (step / retinanet.SCALES_PER_OCTAVE) for step in range(retinanet.SCALES_PER_OCTAVE)]
    return AnchorGenerator(
        tuple(tuple(size * factor for factor in factors) for size in retinanet.ANCHOR_SIZES),
        retinanet.ASPECT_RATIOS,
        retinanet.ANCHOR_STRIDES,
        retinanet.STRADDLE_THRESH,
        **_convention_options(cfg),
    )
