"""Build a module that torch.export can trace from a model and its config.

Shapes: N images, H x W their padded size, C semantic classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.export.dense import DenseDetections
from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.export.heads import DetectionsWithHeads
from maskrcnn_benchmark.export.network_input import NetworkInput
from maskrcnn_benchmark.export.ops import with_free_sides
from maskrcnn_benchmark.export.regions import with_roi_poolers
from maskrcnn_benchmark.export.two_stage import BoxDetections, Proposals
from maskrcnn_benchmark.fast.for_inference import fold_norms
from maskrcnn_benchmark.modeling.detector.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.detector.panoptic_fpn import PanopticFPN
from maskrcnn_benchmark.modeling.detector.semantic_segmentor import SemanticSegmentor
from maskrcnn_benchmark.modeling.roi_heads.cascade import CascadeROIHeads
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import CombinedROIHeads
from maskrcnn_benchmark.modeling.rpn.dense_detector import DenseDetector
from maskrcnn_benchmark.modeling.rpn.rpn import RPNModule
from maskrcnn_benchmark.modeling.semantic.maps import upsample


class ExportableModel(nn.Module):
    """Model from 8-bit pixels to outputs of fixed shapes.

    Args:
        network_input: NetworkInput.
        backbone: maps (N, 3, H, W) to a list of maps.
        detections: maps, sizes and original sizes -> tensors, with their `names`; None for none.
        semantic_head: maps -> logits (N, C, h, w); None for none.
        align_corners: of the upsampling of these logits.
        first_instance_map: index of the first map that `detections` reads.
        takes_original_sizes: whether forward takes `original_sizes`, which NMS then uses.

    Attributes:
        frees_sides: whether the sides of the maps are traced as independent of the image size, see
            `ops.with_free_sides`. Used for ONNX and OpenVINO.

    Forward takes images (N, H, W, 3) uint8 RGB, resized and zero padded; sizes (N, 2) int64, (height, width) of each
    image before padding; and with takes_original_sizes original_sizes (N, 2) int64, before resizing.

    Returns:
        A tuple of tensors, named by `names`: those of `detections`, then "semantic" (N, C, H, W) float32 logits.
    """

    frees_sides = True

    def __init__(
        self,
        network_input: NetworkInput,
        backbone: nn.Module,
        detections: nn.Module | None = None,
        semantic_head: nn.Module | None = None,
        align_corners: bool = False,
        first_instance_map: int = 0,
        takes_original_sizes: bool = False,
    ):
        super().__init__()
        self.network_input = network_input
        self.backbone = backbone
        self.detections = detections
        self.semantic_head = semantic_head
        self.align_corners = align_corners
        self.first_instance_map = first_instance_map
        self.input_names = ("images", "sizes") + ("original_sizes",) * takes_original_sizes
        self.names = (() if detections is None else detections.names) + ("semantic",) * (semantic_head is not None)

    def forward(self, images: Tensor, sizes: Tensor, original_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        maps = self.backbone(self.network_input(images, sizes))
        outputs = ()
        if self.detections is not None:
            levels = maps[self.first_instance_map :]
            if self.frees_sides:
                levels = [with_free_sides(level, [2, 3]) for level in levels]
            outputs = self.detections(levels, sizes, original_sizes)
        if self.semantic_head is not None:
            logits = self.semantic_head(maps).float()
            outputs = (*outputs, upsample(logits, images.shape[1:3], self.align_corners))
        return outputs


class DensePart(nn.Module):
    """Convolutional part of a model: backbone and dense heads, without decoding and NMS.

    Args:
        whole: the model.
        kinds: names of the head's outputs.
        head: its dense head, maps -> one list of maps for each of `kinds`; None for semantic models.
        levels: number of maps that the head reads.
        with_features: also return these maps, for ROI heads.

    Forward takes images and sizes as ExportableModel does. It returns these maps, named by `names`; levels count from
    the finest:
    - "logits0", ..., and "codes0", ... or, for FCOS, "distances0", ... and "centerness0", ...
    - "features0", ... with ROI heads
    - "semantic" for semantic and panoptic models, as the head returns it.
    """

    def __init__(
        self,
        whole: ExportableModel,
        kinds: Sequence[str] = (),
        head: nn.Module | None = None,
        levels: int = 0,
        with_features: bool = False,
    ):
        super().__init__()
        self.network_input, self.backbone, self.head = whole.network_input, whole.backbone, head
        self.semantic_head, self.first_instance_map = whole.semantic_head, whole.first_instance_map
        self.with_features = with_features
        self.input_names = ("images", "sizes")
        kinds = (*kinds, *["features"] * with_features)
        self.names = tuple(f"{kind}{level}" for kind in kinds for level in range(levels))
        self.names += ("semantic",) * (self.semantic_head is not None)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(self.network_input(images, sizes))
        levels = maps[self.first_instance_map :]
        kinds = [*(() if self.head is None else self.head(levels)), *[levels] * self.with_features]
        outputs = [level for kind in kinds for level in kind]
        return (*outputs, *(() if self.semantic_head is None else [self.semantic_head(maps)]))


def make_exportable(cfg, model: nn.Module, all_places: bool = False, dense_only: bool = False) -> nn.Module:
    """Return the exportable form of a model; the model itself is not changed.

    Args:
        cfg: the model's configuration.
        model: as `build_detection_model` returns it, on the CPU.
        all_places: see DetectionsWithHeads.
        dense_only: return a DensePart.

    Raises:
        NotExportable: a part of the model, or a setting, has no form outside of PyTorch.
    """
    _refuse_views(cfg)
    model = copy.deepcopy(model).eval().requires_grad_(False).float()
    fold_norms(model)
    network_input = NetworkInput(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, cfg.INPUT.TO_BGR255)
    if type(model) is SemanticSegmentor:
        whole = ExportableModel(network_input, model.backbone, None, model.aspp, model.align_corners)
        return (DensePart(whole) if dense_only else whole).eval()
    if type(model) not in (GeneralizedRCNN, PanopticFPN):
        raise NotExportable(f"a model of class {type(model).__name__} has no exportable form")
    whole = ExportableModel(
        network_input,
        model.backbone,
        _detections(model, get_convention(cfg.MODEL.CONVENTION).box_offset, all_places),
        model.sem_seg_head if type(model) is PanopticFPN else None,
        first_instance_map=getattr(model, "first_instance_map", 0),
        takes_original_sizes=type(model) is GeneralizedRCNN and model.takes_output_sizes and bool(model.roi_heads),
    )
    if not dense_only:
        return whole.eval()
    kinds = ("logits", "distances", "centerness") if cfg.MODEL.FCOS_ON else ("logits", "codes")
    levels = len(model.rpn.anchor_generator.strides)
    return DensePart(whole, kinds, model.rpn.head, levels, with_features=bool(model.roi_heads)).eval()


def _detections(model: nn.Module, box_offset: float, all_places: bool) -> DetectionsWithHeads:
    heads = None
    if model.roi_heads:
        if type(model.roi_heads) not in (CombinedROIHeads, CascadeROIHeads):
            raise NotExportable(f"ROI heads of class {type(model.roi_heads).__name__} have no exportable form")
        heads = with_roi_poolers(model.roi_heads)
    with_boxes = heads is not None and "box" in heads
    if type(model.rpn) is DenseDetector:
        detector = DenseDetections(model.rpn)
    elif type(model.rpn) is RPNModule:
        detector = Proposals(model.rpn)
    else:
        raise NotExportable(f"a first stage of class {type(model.rpn).__name__} has no exportable form")
    if with_boxes:
        detector = BoxDetections(detector, heads["box"], all_places)
    return DetectionsWithHeads(detector, heads, box_offset, all_places)


def _refuse_views(cfg) -> None:
    semantic = cfg.TEST.SEMANTIC
    if cfg.TEST.BBOX_AUG.ENABLED and cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
        raise NotExportable(
            "TEST.BBOX_AUG.ENABLED is True: an exported model sees an image in one view; set it to False"
        )
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor" and (semantic.H_FLIP or tuple(semantic.SCALES) != (1.0,)):
        raise NotExportable(
            f"TEST.SEMANTIC.SCALES is {tuple(semantic.SCALES)} and H_FLIP {semantic.H_FLIP}: an exported model sees an "
            "image in one view; set them to [1.0] and False"
        )


def example_inputs(model: nn.Module, height: int, width: int, images: int = 2) -> tuple[Tensor, ...]:
    """Return inputs of an exportable model for tracing, all zeros."""
    pixels = torch.zeros((images, height, width, 3), dtype=torch.uint8)
    # separate tensors: one that is given twice becomes one input
    return (pixels, *(torch.tensor([[height, width]] * images) for _ in model.input_names[1:]))
