"""Detectors with few channels: every kind of head, built in milliseconds."""

from __future__ import annotations

import copy

import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config import check_values
from maskrcnn_benchmark.modeling.detector import build_detection_model

BODY = (
    "MODEL.DEVICE cpu MODEL.BACKBONE.NORM GN MODEL.BACKBONE.FREEZE_CONV_BODY_AT 0 DATALOADER.NUM_WORKERS 0 "
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS 64 MODEL.RETINANET.USE_C5 False "
    "MODEL.VOVNET.BACKBONE_OUT_CHANNELS 64 MODEL.VOVNET.STEM_CHANNELS [32,32,32] MODEL.VOVNET.LAYERS_PER_BLOCK 2 "
    "MODEL.VOVNET.STAGE_CONV_CHANNELS [32,32,32,32] MODEL.VOVNET.STAGE_OUT_CHANNELS [32,32,32,32] "
)
_DENSE = BODY + "MODEL.RPN_ONLY True MODEL.BACKBONE.CONV_BODY V-27-FPN-RETINANET "
_PYRAMID = "[0.25,0.125,0.0625,0.03125]"
_RPN = BODY + (
    "MODEL.BACKBONE.CONV_BODY V-27-FPN MODEL.RPN.USE_FPN True MODEL.RPN.ANCHOR_STRIDE [4,8,16,32,64] "
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST 20 MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN 100 "
)
_BOX = _RPN + (
    "MODEL.ROI_HEADS.USE_FPN True MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 32 "
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR FPN2MLPFeatureExtractor MODEL.ROI_BOX_HEAD.PREDICTOR FPNPredictor "
    f"MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 7 MODEL.ROI_BOX_HEAD.POOLER_SCALES {_PYRAMID} "
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO 2 MODEL.ROI_BOX_HEAD.NUM_CLASSES 3 MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM 32 "
)
_MASK = (
    "MODEL.MASK_ON True MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR MaskRCNNFPNFeatureExtractor "
    "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR False MODEL.ROI_MASK_HEAD.CONV_LAYERS [32] "
    f"MODEL.ROI_MASK_HEAD.POOLER_SCALES {_PYRAMID} MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO 2 "
    "MODEL.ROI_MASK_HEAD.RESOLUTION 28 "
)
_KEYPOINT = (
    "MODEL.KEYPOINT_ON True MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR False "
    "MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS [32] MODEL.ROI_KEYPOINT_HEAD.RESOLUTION 56 "
    f"MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES {_PYRAMID} MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO 2 "
)
_SCORING = "MODEL.MASKIOU_ON True MODEL.ROI_MASKIOU_HEAD.CONV_LAYERS [32,32] "
_CENTERMASK = (
    _DENSE
    + "MODEL.FCOS_ON True MODEL.FCOS.NUM_CLASSES 3 MODEL.FCOS.NUM_CONVS 1 MODEL.FCOS_MASK True "
    + "MODEL.FCOS.POST_NMS_TOP_N_TRAIN 20 MODEL.CONVENTION centermask2 MODEL.FCOS.NORM_REG_TARGETS True "
    + _MASK
    + _SCORING
    + "MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR MaskRCNNFPNSpatialAttentionFeatureExtractor "
    + "MODEL.ROI_MASK_HEAD.POOLER_SCALES [0.125,0.0625,0.03125] "
    + "MODEL.ROI_MASK_HEAD.LEVEL_MAP_FUNCTION CenterMaskLevelMapFunc "
)
_PANOPTIC = "MODEL.META_ARCHITECTURE PanopticFPN MODEL.SEM_SEG_HEAD.CONVS_DIM 32 MODEL.SEM_SEG_HEAD.NUM_CLASSES 4"
# Two classes and the background. Each has a body of four stages with GroupNorm, and accepts images of any size.
MODELS = {
    "fcos": _DENSE + "MODEL.FCOS_ON True MODEL.FCOS.NUM_CLASSES 3 MODEL.FCOS.NUM_CONVS 1",
    "retinanet": _DENSE + "MODEL.RETINANET_ON True MODEL.RETINANET.NUM_CLASSES 3 MODEL.RETINANET.NUM_CONVS 1",
    "rpn": _RPN + "MODEL.RPN_ONLY True",
    "faster": _BOX,
    "mask": _BOX + _MASK,
    "keypoint": _BOX + _KEYPOINT,
    "mask and keypoint": _BOX + _MASK + _KEYPOINT,
    "mask, detectron2": _BOX + _MASK + "MODEL.CONVENTION detectron2",
    "panoptic": _BOX + _MASK + _PANOPTIC,
    "mask scoring": _BOX + _MASK + _SCORING,
    "centermask": _CENTERMASK,
    "panoptic centermask": _CENTERMASK + _PANOPTIC + " MODEL.BACKBONE.CONV_BODY V-27-FPN-P2P7",
    "cascade mask": _BOX + _MASK + "MODEL.CASCADE_ON True",
}


def tiny_cfg(name: str, *opts):
    """Return the config of MODELS[name] with KEY VALUE opts on top, not frozen."""
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_list([*MODELS[name].split(), *opts])
    check_values(cfg)
    return cfg


def tiny_model(cfg):
    """Build the model in evaluation mode. Unlike untrained ones its scores, masks and boxes vary by position."""
    model = build_detection_model(cfg).eval()
    for part, parameter in model.named_parameters():
        if part.endswith(("cls_logits.weight", "cls_score.weight", "bbox_pred.weight", "centerness.weight")):
            torch.nn.init.normal_(parameter, std=0.1)
        elif part.endswith(("fcn_logits.weight", "score_lowres.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
        elif part.endswith("cls_logits.bias"):
            torch.nn.init.zeros_(parameter)
    return model
