"""Defaults of the dense heads: MODEL.FCOS and MODEL.RETINANET.

NUM_CLASSES includes the background; -1 = take it from the training data. In counts (*_TOP_N) 0 and -1 mean no limit. An
NMS threshold of 0 or less disables suppression.
"""

from __future__ import annotations

from .loading import CfgNode as CN

FCOS = CN()
FCOS.NUM_CLASSES = 81
# Strides of P3..P7 in pixels of the network input.
FCOS.FPN_STRIDES = [8, 16, 32, 64, 128]
# Bounds between P3 and P4, P4 and P5, P5 and P6, P6 and P7: largest distance from a location to a side of its box, in
# pixels of the network input (new; constants in the forks).
FCOS.SIZES_OF_INTEREST = [64, 128, 256, 512]
# Initial probability of every class, set by the bias of the classifier.
FCOS.PRIOR_PROB = 0.01
# Minimum class probability of a location, before the product with centreness.
FCOS.INFERENCE_TH = 0.05
# IoU above which a box is suppressed.
FCOS.NMS_TH = 0.6
# Candidates kept per level and image before NMS.
FCOS.PRE_NMS_TOP_N = 1000
# Detections per image that ROI heads train on. In tests, TEST.DETECTIONS_PER_IMG applies instead.
FCOS.POST_NMS_TOP_N_TRAIN = 100
FCOS.LOSS_ALPHA = 0.25
FCOS.LOSS_GAMMA = 2.0
# 3x3 convolutions of each tower.
FCOS.NUM_CONVS = 4
# Their channels (new); 0 = those of FPN.
FCOS.TOWER_CHANNELS = 0
# Improvements of upstream FCOS. Radius in strides around the box centre in which locations are positive; 0 = whole box.
FCOS.CENTER_SAMPLING_RADIUS = 0.0
# "iou" (-log), "linear_iou" or "giou".
FCOS.IOU_LOSS_TYPE = "iou"
# Regress distances in strides, through relu, instead of pixels through exp.
FCOS.NORM_REG_TARGETS = False
# Centreness branch on the regression tower instead of the classification tower.
FCOS.CENTERNESS_ON_REG = False
FCOS.USE_DCN_IN_TOWER = False
# Divisor of the class loss: "positives_and_images" (VoVNet-FCOS) or "positives" (upstream FCOS) (new).
FCOS.LOSS_NORMALIZER = "positives_and_images"

RETINANET = CN()
RETINANET.NUM_CLASSES = 81
# Sides (pixels of the network input) and strides of the anchors of P3..P7; SCALES_PER_OCTAVE sizes each.
RETINANET.ANCHOR_SIZES = (32, 64, 128, 256, 512)
RETINANET.ASPECT_RATIOS = (0.5, 1.0, 2.0)
RETINANET.ANCHOR_STRIDES = (8, 16, 32, 64, 128)
RETINANET.STRADDLE_THRESH = 0
RETINANET.OCTAVE = 2.0
RETINANET.SCALES_PER_OCTAVE = 3
# Compute P6 from C5, else from P5; also used by the FPN of FCOS.
RETINANET.USE_C5 = True
RETINANET.NUM_CONVS = 4
RETINANET.BBOX_REG_WEIGHT = 4.0
RETINANET.BBOX_REG_BETA = 0.11
RETINANET.PRE_NMS_TOP_N = 1000
RETINANET.FG_IOU_THRESHOLD = 0.5
RETINANET.BG_IOU_THRESHOLD = 0.4
RETINANET.LOSS_ALPHA = 0.25
RETINANET.LOSS_GAMMA = 2.0
RETINANET.PRIOR_PROB = 0.01
RETINANET.INFERENCE_TH = 0.05
RETINANET.NMS_TH = 0.4
