"""From a config to a model."""

from __future__ import annotations

import torch

from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.convention import get_convention
from maskrcnn_benchmark.modeling.detector.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import build_roi_heads
from maskrcnn_benchmark.modeling.rpn.rpn import build_rpn


def _build_generalized_rcnn(cfg):
    backbone = build_backbone(cfg)
    rpn = build_rpn(cfg, backbone.out_channels)
    roi_heads = build_roi_heads(cfg, backbone.out_channels)
    return GeneralizedRCNN(backbone, rpn, roi_heads, get_convention(cfg.MODEL.CONVENTION).size_divisibility)


META_ARCHITECTURES = {"GeneralizedRCNN": _build_generalized_rcnn}


def build_detection_model(cfg):
    """The model that MODEL.META_ARCHITECTURE and the keys below it describe, on the CPU, freshly initialised.

    Raises:
        ValueError: there is no such meta architecture, or a part of it cannot be built.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCHITECTURES:
        raise ValueError(f"MODEL.META_ARCHITECTURE is {name!r}; known are {', '.join(META_ARCHITECTURES)}")
    # Convolutions take the layout of their weights: channels_last is what CPUs and tensor cores compute fastest in.
    return META_ARCHITECTURES[name](cfg).to(memory_format=torch.channels_last)
