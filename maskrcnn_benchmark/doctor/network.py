"""Resize, feature levels and anchor shapes of a detector, for the checks of box sizes.

Shapes: I images, B boxes, A anchors, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn_benchmark.config.stages import has_box_head
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.data.transforms.transforms import Resize
from maskrcnn_benchmark.modeling.poolers import LevelMapper
from maskrcnn_benchmark.modeling.rpn.anchor_generator import make_anchor_generator, make_anchor_generator_retinanet


@dataclass(frozen=True)
class Levels:
    """The levels of a detector.

    Attributes:
        names: L names, finest first.
        how: what decides the level, for messages.
        assign: (B, 2) sides in pixels of the network input -> (B,) numbers of levels from 0.
    """

    names: tuple[str, ...]
    how: str
    assign: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Anchors:
    """The shapes of a detector's anchors.

    Attributes:
        sides: (A, 2) float64 width and height in pixels of the network input.
        sizes: one size per level, or all sizes of a single level.
        ratios: heights divided by widths.
        sizes_key, ratios_key: the config keys of `sizes` and `ratios`.
        threshold: IoU from which an anchor is assigned to a box, besides each box's best one.
        remake: (sizes, ratios) -> sides of the anchors that these would give.
    """

    sides: np.ndarray
    sizes: tuple
    ratios: tuple
    sizes_key: str
    ratios_key: str
    threshold: float
    remake: Callable[[tuple, tuple], np.ndarray]


@dataclass(frozen=True)
class NetworkInput:
    """Resize of images to the network input. Of several training sizes, the middle one is used.

    Attributes:
        resize: Resize of training or testing, with a single size.
        key: the config key of the size.
    """

    resize: Resize
    key: str

    def factors(self, sizes: np.ndarray) -> np.ndarray:
        """Return (I, 2) float64 factors in x and y of images of (I, 2) width, height."""
        unique, places = np.unique(np.asarray(sizes).reshape(-1, 2), axis=0, return_inverse=True)
        resized = [self.resize.get_size(tuple(size))[::-1] for size in unique.tolist()]
        return (np.array(resized, dtype=np.float64).reshape(-1, 2) / unique)[places.reshape(-1)]


def build_network_input(cfg, is_train: bool) -> NetworkInput | None:
    """Build the resize from cfg; None for a SemanticSegmentor, which does not resize."""
    resize = next((step for step in build_transforms(cfg, is_train).transforms if isinstance(step, Resize)), None)
    if resize is None:
        return None
    middle = sorted(resize.min_size)[len(resize.min_size) // 2]
    in_range = is_train and tuple(cfg.INPUT.MIN_SIZE_RANGE_TRAIN)[:1] not in ((), (-1,))
    key = ("INPUT.MIN_SIZE_RANGE_TRAIN" if in_range else "INPUT.MIN_SIZE_TRAIN") if is_train else "INPUT.MIN_SIZE_TEST"
    return NetworkInput(Resize(middle, resize.max_size, resize.to_nearest), key)


def build_levels(cfg) -> Levels | None:
    """Build the levels of FCOS, or of the box head's FPN, from cfg; None where there is one level, or no head."""
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        return None
    if cfg.MODEL.FCOS_ON:
        bounds = tuple(cfg.MODEL.FCOS.SIZES_OF_INTEREST)
        edges = (0, *bounds, math.inf)
        names = tuple(
            f"P{round(math.log2(stride))} ({low:g} to {high:g} px)".replace(" to inf", " and more")
            for stride, low, high in zip(cfg.MODEL.FCOS.FPN_STRIDES, edges, edges[1:], strict=False)
        )
        how = "the largest distance from the center to a side (MODEL.FCOS.SIZES_OF_INTEREST)"
        return Levels(names, how, lambda sides: np.searchsorted(bounds, sides.max(axis=1) / 2))
    scales = cfg.MODEL.ROI_BOX_HEAD.POOLER_SCALES
    if not has_box_head(cfg.MODEL) or len(scales) < 2:
        return None
    first, last = (round(-math.log2(scale)) for scale in (scales[0], scales[-1]))
    mapper = LevelMapper(first, last, box_offset=0.0)

    def assign(sides: np.ndarray) -> np.ndarray:
        boxes = np.concatenate([np.zeros_like(sides), sides], axis=1)
        return mapper.of_boxes(torch.from_numpy(boxes)).numpy()

    return Levels(tuple(f"P{level}" for level in range(first, last + 1)), "the box head's FPN levels", assign)


def finest_stride(cfg) -> int | None:
    """Return the stride of FCOS's finest level; None for other detectors."""
    return min(cfg.MODEL.FCOS.FPN_STRIDES) if cfg.MODEL.FCOS_ON else None


def build_anchors(cfg) -> Anchors | None:
    """Build the shapes of the anchors from cfg; None for detectors without anchors."""
    model = cfg.MODEL
    if model.META_ARCHITECTURE == "SemanticSegmentor" or model.FCOS_ON:
        return None
    node, make, key = (
        (model.RETINANET, make_anchor_generator_retinanet, "MODEL.RETINANET")
        if model.RETINANET_ON
        else (model.RPN, make_anchor_generator, "MODEL.RPN")
    )

    def remake(sizes: tuple, ratios: tuple) -> np.ndarray:
        changed = cfg.clone()
        changed.defrost()
        changed.merge_from_list([f"{key}.ANCHOR_SIZES", tuple(sizes), f"{key}.ASPECT_RATIOS", tuple(ratios)])
        generator = make(changed)
        cells = np.concatenate([cell.numpy() for cell in generator.cell_anchors]).astype(np.float64)
        return cells[:, 2:] - cells[:, :2] + generator.box_offset

    sizes, ratios = tuple(node.ANCHOR_SIZES), tuple(node.ASPECT_RATIOS)
    return Anchors(
        remake(sizes, ratios),
        sizes,
        ratios,
        f"{key}.ANCHOR_SIZES",
        f"{key}.ASPECT_RATIOS",
        node.FG_IOU_THRESHOLD,
        remake,
    )
