"""Tiny models of every kind to export, and images to compare them on."""

from __future__ import annotations

import numpy as np
import torch

from helpers.tiny_models import tiny_cfg, tiny_model
from maskrcnn_benchmark.structures.label_names import LabelNames

LABELS = LabelNames(["a", "b"], None, ["things", "grass", "sky", "sea"])
SEMANTIC_LABELS = LabelNames((), None, [f"class {k}" for k in range(5)])
SIZES = ["INPUT.MIN_SIZE_TEST", 128, "INPUT.MAX_SIZE_TEST", 192, "DATALOADER.SIZE_DIVISIBILITY", 32]

# FCOS in RPN's place
_ON_FCOS = [
    *("MODEL.FCOS_MASK", False, "MODEL.RPN_ONLY", False, "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR"),
    *("FPN2MLPFeatureExtractor", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7, "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", 32),
    *("MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.125, 0.0625, 0.03125), "MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNPredictor"),
    *("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 3, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 7, "TEST.DETECTIONS_PER_IMG", 20),
]
_DEFORMABLE = ["STAGE_WITH_DCN", (False, True, True, True), "WITH_MODULATED_DCN", True]
_VOVNET = [f"MODEL.VOVNET.{each}" if isinstance(each, str) else each for each in _DEFORMABLE]
_RESNET = [f"MODEL.RESNETS.{each}" if isinstance(each, str) else each for each in _DEFORMABLE]
_NO_GN = ["MODEL.BACKBONE.NORM", "FrozenBN"]
_LITE = ["MODEL.BACKBONE.CONV_BODY", "MNV2-FPNLite", *_NO_GN]
_C4 = [
    *("MODEL.RPN.USE_FPN", False, "MODEL.ROI_HEADS.USE_FPN", False, "MODEL.RPN.ANCHOR_STRIDE", (16,)),
    *("MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 1024, "MODEL.RPN.POST_NMS_TOP_N_TEST", 20),
    *("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "ResNet50Conv5ROIFeatureExtractor"),
    *("MODEL.ROI_BOX_HEAD.PREDICTOR", "FastRCNNPredictor", "MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.0625,)),
    *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 14, "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 0),
    *("MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR", "ResNet50Conv5ROIFeatureExtractor"),
    *("MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", True, "MODEL.ROI_MASK_HEAD.POOLER_SCALES", (0.0625,)),
    *("MODEL.ROI_MASK_HEAD.RESOLUTION", 14, "MODEL.BACKBONE.CONV_BODY", "R-50-C4"),
]
_DEEPLAB = [
    *("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.BACKBONE.CONV_BODY", "V-27"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "MODEL.DEEPLAB.CHANNELS", 32, "MODEL.BACKBONE.OUTPUT_STRIDE", 16),
]

# name: one of tiny_models.MODELS, convention, KEY VALUE opts
CASES = {
    "fcos": ("fcos", "maskrcnn_benchmark", []),
    "retinanet, detectron2": ("retinanet", "detectron2", []),
    "rpn": ("rpn", "maskrcnn_benchmark", []),
    "faster": ("faster", "maskrcnn_benchmark", []),
    "faster, class-agnostic": ("faster", "detectron2", ["MODEL.CLS_AGNOSTIC_BBOX_REG", True]),
    "mask and keypoint": ("mask and keypoint", "maskrcnn_benchmark", []),
    "keypoint, detectron2": ("keypoint", "detectron2", []),
    "mask, mmdetection": ("mask", "mmdetection", []),
    "mask scoring": ("mask scoring", "maskrcnn_benchmark", []),
    "panoptic": ("panoptic", "detectron2", []),
    "cascade mask, mmdetection": ("cascade mask", "mmdetection", []),
    "centermask": ("centermask", "centermask", ["MODEL.FCOS.NORM_REG_TARGETS", False]),
    "centermask2": ("centermask", "centermask2", []),
    "panoptic centermask": ("panoptic centermask", "centermask2", []),
    "faster on fcos": ("centermask", "centermask2", [*_ON_FCOS, "MODEL.MASK_ON", False, "MODEL.MASKIOU_ON", False]),
    "mask scoring on fcos": ("centermask", "centermask2", _ON_FCOS),
    "mask, C4": ("mask", "maskrcnn_benchmark", _C4),
    "faster, MobileNetV2 FPNLite": ("faster", "maskrcnn_benchmark", _LITE),
    "fcos, DenseNet": ("fcos", "maskrcnn_benchmark", ["MODEL.BACKBONE.CONV_BODY", "D-121-FPN-RETINANET"]),
    "deformable VoVNet": ("faster", "detectron2", _VOVNET),
    "deformable ResNet and towers": (
        "fcos",
        "maskrcnn_benchmark",
        ["MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET", "MODEL.FCOS.USE_DCN_IN_TOWER", True, *_RESNET],
    ),
    "deeplab": ("fcos", "maskrcnn_benchmark", _DEEPLAB),
    "deeplab with decoder": ("fcos", "maskrcnn_benchmark", [*_DEEPLAB, "MODEL.DEEPLAB.DECODER", True]),
}


def case(name: str, *opts):
    """Return (cfg, model in evaluation, LabelNames) of a case; the same weights at every call."""
    torch.manual_seed(3)
    base, convention, changes = CASES[name]
    cfg = tiny_cfg(base, "MODEL.CONVENTION", convention, *SIZES, *changes, *opts)
    model = tiny_model(cfg)
    if cfg.MODEL.FCOS_ON and not (cfg.MODEL.RPN_ONLY or cfg.MODEL.FCOS_MASK):
        # boxes of some strides: all that are empty would have one and the same score
        torch.nn.init.constant_(model.rpn.head.bbox_pred.bias, 2.0)
    for part, parameter in model.named_parameters():
        if "offset" in part:
            parameter.data.mul_(0.01)  # offsets of hundreds of pixels amplify rounding
        is_of_boxes = "box.predictor" in part or "rpn.head.bbox_pred" in part
        if is_of_boxes and parameter.dim() > 1 and parameter.shape[1] > 512:
            parameter.data.mul_(0.1)  # as do boxes that are moved by several of their sides
    return cfg, model, SEMANTIC_LABELS if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor" else LABELS


def noise(*sizes):
    """Return images of smooth noise, (height, width) each, the same at every call."""
    generator = np.random.default_rng(0)
    images = []
    for height, width in sizes:
        coarse = generator.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
        images.append(np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]))
    return images
