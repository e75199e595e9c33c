"""Build models from configs."""

from __future__ import annotations

import math

import torch

from maskrcnn_benchmark.config.checks import check_values
from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.config.stages import has_roi_heads
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.detector.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.detector.panoptic_fpn import PanopticFPN
from maskrcnn_benchmark.modeling.detector.panoptic_merge import MergeRules
from maskrcnn_benchmark.modeling.detector.semantic_segmentor import SemanticSegmentor
from maskrcnn_benchmark.modeling.detector.strides import first_instance_map
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import mask_pasting
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import build_roi_heads
from maskrcnn_benchmark.modeling.rpn.rpn import build_rpn
from maskrcnn_benchmark.modeling.semantic.deeplab_head import build_deeplab_head
from maskrcnn_benchmark.modeling.semantic.fpn_head import build_sem_seg_fpn_head
from maskrcnn_benchmark.modeling.semantic.segmentation_losses import build_segmentation_loss
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL


def _build_generalized_rcnn(cfg):
    backbone = build_backbone(cfg)
    channels = _channels(cfg, backbone)
    rpn = build_rpn(cfg, channels)
    roi_heads = build_roi_heads(cfg, channels)
    convention = get_convention(cfg.MODEL.CONVENTION)
    return GeneralizedRCNN(
        backbone,
        rpn,
        roi_heads,
        size_divisible=_size_divisible(cfg),
        takes_output_sizes=convention.nms_in_output_size,
    )


def _build_panoptic_fpn(cfg):
    check_panoptic_fpn(cfg)
    backbone = build_backbone(cfg)
    channels = _channels(cfg, backbone)
    node = cfg.MODEL.PANOPTIC_FPN
    return PanopticFPN(
        backbone,
        build_rpn(cfg, channels),
        build_roi_heads(cfg, channels),
        build_sem_seg_fpn_head(cfg, channels),
        MergeRules(
            score=node.COMBINE.INSTANCES_CONFIDENCE_THRESH,
            overlap=node.COMBINE.OVERLAP_THRESH,
            stuff_area=node.COMBINE.STUFF_AREA_LIMIT,
        ),
        mask_pasting(cfg),
        semantic_loss_weight=cfg.MODEL.SEM_SEG_HEAD.LOSS_WEIGHT,
        instance_loss_weight=node.INSTANCE_LOSS_WEIGHT,
        size_divisible=_size_divisible(cfg),
        first_instance_map=first_instance_map(cfg, backbone),
    )


def _channels(cfg, backbone) -> int:
    return registry.channels_of(backbone, f"MODEL.BACKBONE.CONV_BODY {cfg.MODEL.BACKBONE.CONV_BODY!r}")


def _size_divisible(cfg) -> int:
    """Return the least common multiple of the convention's value and DATALOADER.SIZE_DIVISIBILITY; 0 if both are 0."""
    numbers = (get_convention(cfg.MODEL.CONVENTION).size_divisibility, cfg.DATALOADER.SIZE_DIVISIBILITY)
    return math.lcm(*filter(None, numbers)) if any(numbers) else 0


def check_panoptic_fpn(cfg):
    """Check that the config describes a Mask R-CNN with FPN, or a CenterMask, which PanopticFPN extends.

    Raises:
        ValueError: the config describes another model.
    """
    model = cfg.MODEL
    wanted = "MODEL.META_ARCHITECTURE PanopticFPN requires"
    if not model.MASK_ON or not has_roi_heads(model):
        raise ValueError(
            f"{wanted} MODEL.MASK_ON True and a second stage: MODEL.RPN_ONLY False and RETINANET_ON False, or FCOS_ON "
            f"and FCOS_MASK True; but MASK_ON is {model.MASK_ON}, RPN_ONLY {model.RPN_ONLY}, RETINANET_ON "
            f"{model.RETINANET_ON}, FCOS_ON {model.FCOS_ON} and FCOS_MASK {model.FCOS_MASK}"
        )
    if not (model.FCOS_ON or model.RPN.USE_FPN) or model.ROI_MASK_HEAD.POSTPROCESS_MASKS:
        raise ValueError(f"{wanted} MODEL.RPN.USE_FPN True and MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS False")


def _build_semantic_segmentor(cfg):
    node = cfg.MODEL.SEM_SEG_HEAD
    if not 1 <= node.NUM_CLASSES <= IGNORE_LABEL:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {node.NUM_CLASSES}; set it to 1 to {IGNORE_LABEL} classes, or run "
            "tools/train_net.py with -1 to take the number from the dataset"
        )
    backbone = build_backbone(cfg)
    if hasattr(backbone, "fpn"):
        raise ValueError(
            "MODEL.META_ARCHITECTURE SemanticSegmentor requires a body without FPN, but MODEL.BACKBONE.CONV_BODY is "
            f"{cfg.MODEL.BACKBONE.CONV_BODY!r}; leave out '-FPN...', as in 'V-39'"
        )
    return SemanticSegmentor(
        backbone,
        build_deeplab_head(cfg, backbone.body.out_channels),
        build_segmentation_loss(cfg),
        loss_weight=node.LOSS_WEIGHT,
        align_corners=cfg.MODEL.DEEPLAB.ALIGN_CORNERS,
        size_divisible=_size_divisible(cfg),
    )


META_ARCHITECTURES = {
    "GeneralizedRCNN": _build_generalized_rcnn,
    "PanopticFPN": _build_panoptic_fpn,
    "SemanticSegmentor": _build_semantic_segmentor,
}


def build_detection_model(cfg):
    """Build the model that MODEL.META_ARCHITECTURE describes, on the CPU, with freshly initialized weights.

    Raises:
        ValueError: the meta architecture is unknown, a value is out of range, or a part cannot be built.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCHITECTURES:
        raise ValueError(f"MODEL.META_ARCHITECTURE is {name!r}; expected one of {', '.join(META_ARCHITECTURES)}")
    check_values(cfg)
    model = META_ARCHITECTURES[name](cfg)
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.winograd = cfg.WINOGRAD
    # Convolutions follow the memory format of their weights. channels_last is the fastest on CPUs and tensor cores.
    return model.to(memory_format=torch.channels_last)
