"""Describe an exported model in its file, so that it runs without its configuration.

The values are plain JSON, because the runtime (`runtime.py`) reads them and may not import this package.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

import maskrcnn_benchmark
from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.data.datasets.image_settings import image_settings
from maskrcnn_benchmark.export.model import DensePart
from maskrcnn_benchmark.export.two_stage import Proposals
from maskrcnn_benchmark.modeling.detector.panoptic_fpn import PanopticFPN
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import mask_pasting
from maskrcnn_benchmark.structures.label_names import LabelNames

# coarsest stride of the backbone bodies
LEAST_SIDE = 32


def describe(
    cfg,
    model: nn.Module,
    exportable: nn.Module,
    label_names: LabelNames,
    fixed_size: tuple[int, int] | None = None,
    batch: int = 0,
    image_size: Sequence[int] | None = None,
) -> dict:
    """Return the metadata of an exported model.

    Args:
        model: the plain model.
        exportable: ExportableModel or DensePart made from it.
        fixed_size: (height, width) of all images; None if they are dynamic.
        batch: batch size of a model of fixed size; 0 if it is dynamic.
        image_size: typical [width, height] of the training images; None if unknown.
    """
    convention = get_convention(cfg.MODEL.CONVENTION)
    settings = image_settings(cfg)
    pasting = mask_pasting(cfg)
    is_semantic = cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor"
    rules = model.merge_rules if isinstance(model, PanopticFPN) else None
    return {
        "version": 1,
        "form": "dense" if isinstance(exportable, DensePart) else "whole",
        "inputs": list(exportable.input_names),
        "outputs": list(exportable.names),
        "class_names": list(label_names.class_names),
        "category_ids": list(label_names.category_ids),
        "semantic_names": list(label_names.semantic_names),
        "semantic_ids": list(label_names.semantic_ids),
        "min_size": None if is_semantic else cfg.INPUT.MIN_SIZE_TEST,
        "max_size": None if is_semantic else cfg.INPUT.MAX_SIZE_TEST,
        "resize_to_nearest": convention.resize_to_nearest,
        # SegmentByViews pads only to pad_to
        "size_divisible": 0 if is_semantic else cfg.DATALOADER.SIZE_DIVISIBILITY,
        "pad_to": _least_size(cfg.TEST.SEMANTIC.PAD_TO if is_semantic else ()),
        "fixed_size": None if fixed_size is None else list(fixed_size),
        "batch": batch,
        "image_size": None if image_size is None else list(image_size),
        "upright": settings.exif_rotation != "stored",
        "value_range": None if settings.value_range is None else list(settings.value_range),
        "box_offset": convention.box_offset,
        "mask_pasting": {"padding": pasting.padding, "aligned": pasting.aligned},
        "merge": None if rules is None else vars(rules),
        "thresholds": _thresholds(exportable),
        "convention": cfg.MODEL.CONVENTION,
        "body": cfg.MODEL.BACKBONE.CONV_BODY,
        "maskrcnn_benchmark": maskrcnn_benchmark.__version__,
        "torch": torch.__version__,
        "config": cfg.dump(),
    }


def _least_size(pad_to: Sequence[int]) -> list[int]:
    """Return the minimum (height, width) of a padded image. Smaller ones may give empty maps, on which engines fail."""
    return [max(side, LEAST_SIDE) for side in pad_to or (1, 1)]


def _thresholds(exportable: nn.Module) -> dict:
    """Return the score threshold, NMS threshold and number of detection slots that are built into the graph."""
    detector = getattr(getattr(exportable, "detections", None), "detector", None)
    if detector is None:
        return {}
    select = detector.select
    if isinstance(detector, Proposals):
        return {"nms": select.nms_thresh, "detections": detector.count}
    return {
        "score": select.score_thresh,
        "nms": select.nms_thresh if hasattr(select, "nms_thresh") else select.nms,
        "detections": select.detections_per_img,
    }
