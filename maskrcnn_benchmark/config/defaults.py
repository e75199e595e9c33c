"""Defaults of all config keys.

Keys and defaults are the union of maskrcnn-benchmark's (with its VoVNet branch) and FCOS's, so that their files merge
unchanged. Keys that neither has are marked "(new)". MODEL.FCOS_ON is False here, but True in both FCOS forks.

A key has the type of its default. See values.py for accepted conversions, rules.py for valid values, and
accepted_keys.py for keys without effect.
"""

from __future__ import annotations

import os

from .accepted_keys import add_fbnet
from .defaults_data import DATALOADER, DATASETS, INPUT
from .defaults_dense import FCOS, RETINANET
from .defaults_semantic import DEEPLAB, PANOPTIC_FPN, SEM_SEG_HEAD, TEST_SEMANTIC
from .loading import CfgNode as CN

_C = CN()

# Seed of weights, sample order and augmentation; the same in every process (new).
_C.SEED = 0
# "float32", or mixed precision with torch.amp in "float16" (with loss scaling) or "bfloat16"; "auto": bfloat16 if the
# CPU or GPU supports it in hardware, else float32.
_C.DTYPE = "float32"
# Use the Winograd algorithm for 3x3 convolutions on a CPU where it is faster; rounding errors are about twice as large
# (new).
_C.WINOGRAD = True
# On a CPU, keep freed memory for the next image instead of returning it to the system: faster, but up to a third more
# memory (new).
_C.KEEP_FREED_MEMORY = True
# Key of apex, without effect: torch.amp prints nothing.
_C.AMP_VERBOSE = False
# Folder for all files that a run writes.
_C.OUTPUT_DIR = "."
# Only this value is accepted: catalogs in Python are never executed. Describe datasets inline, see DATASETS.
_C.PATHS_CATALOG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "paths_catalog.py")

# ---------------------------------------------------------------------------------------------------------------------
# Parts of the model
# ---------------------------------------------------------------------------------------------------------------------
_C.MODEL = CN()
_C.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
# "cuda", "cuda:N" or "cpu"; "cuda" falls back to "cpu", with a warning, if torch finds no GPU.
_C.MODEL.DEVICE = "cuda"
# Weights to load before training or testing: a path, an http(s) address, or catalog://NAME; "" = none.
_C.MODEL.WEIGHT = ""
# Numeric convention: inclusive boxes, ROIAlign shift, anchor rounding, normalisers, ... (new). "maskrcnn_benchmark",
# "detectron2", "mmdetection", "centermask2" or "centermask"; see convention.py.
_C.MODEL.CONVENTION = "maskrcnn_benchmark"
_C.MODEL.RPN_ONLY = False
_C.MODEL.MASK_ON = False
_C.MODEL.KEYPOINT_ON = False
_C.MODEL.RETINANET_ON = False
# Cascade R-CNN: several box heads and mask heads in sequence, see CASCADE (new).
_C.MODEL.CASCADE_ON = False
# FCOS as the first stage: alone with RPN_ONLY True, otherwise in RPN's place.
_C.MODEL.FCOS_ON = False
# CenterMask: FCOS's detections go to the mask and keypoint heads, without a box head, whatever RPN_ONLY says.
_C.MODEL.FCOS_MASK = False
# Mask scoring: a head predicts the IoU of each mask with its object; "mask_scores" are scores times IoU.
_C.MODEL.MASKIOU_ON = False
_C.MODEL.MASKIOU_LOSS_WEIGHT = 1.0
# Regress boxes once for all classes (background, foreground) instead of per class.
_C.MODEL.CLS_AGNOSTIC_BBOX_REG = False
# Training only: convert every BatchNorm of the model to SyncBatchNorm.
_C.MODEL.USE_SYNCBN = False

_C.MODEL.BACKBONE = CN()
# A name in modeling.registry.BACKBONES; see the top of modeling/backbone/backbone.py.
_C.MODEL.BACKBONE.CONV_BODY = "R-50-C4"
# Frozen parts of the body: 1 = stem, 2 = stem and first stage, ...; 0 = none. MobileNetV2 counts blocks, not stages.
_C.MODEL.BACKBONE.FREEZE_CONV_BODY_AT = 2
# Key of FCOS that no fork reads. For GroupNorm in the body see NORM, RESNETS.TRANS_FUNC and VOVNET.USE_GN.
_C.MODEL.BACKBONE.USE_GN = False
# Norm of the body (new): "FrozenBN", "BN", "SyncBN" or "GN". "" = the default of the family: frozen batch norm
# (GroupNorm with USE_GN or TRANS_FUNC), or trained BN for MobileNetV2.
_C.MODEL.BACKBONE.NORM = ""
# eps and momentum of the body's batch norms (new). NORM_EPS -1 = 1e-5, or the convention's eps for frozen batch norm.
_C.MODEL.BACKBONE.NORM_EPS = -1.0
_C.MODEL.BACKBONE.NORM_MOMENTUM = 0.1
# Stride of the body's last map: 32, or 16 or 8 with dilation instead of the last strides; only without FPN (new).
_C.MODEL.BACKBONE.OUTPUT_STRIDE = 32

_C.MODEL.FPN = CN()
_C.MODEL.FPN.USE_GN = False
_C.MODEL.FPN.USE_RELU = False

_C.MODEL.GROUP_NORM = CN()
# Channels per group, or groups per layer; exactly one of them is -1.
_C.MODEL.GROUP_NORM.DIM_PER_GP = -1
_C.MODEL.GROUP_NORM.NUM_GROUPS = 32
_C.MODEL.GROUP_NORM.EPSILON = 1e-5

_C.MODEL.RESNETS = CN()
# ResNeXt: groups and channels per group of the 3x3 convolutions (32 x 8, 64 x 4).
_C.MODEL.RESNETS.NUM_GROUPS = 1
_C.MODEL.RESNETS.WIDTH_PER_GROUP = 64
# Stride 2 in the first 1x1 convolution of a block (MSRA, Caffe2 weights) or in its 3x3 (torchvision, ResNeXt).
_C.MODEL.RESNETS.STRIDE_IN_1X1 = True
_C.MODEL.RESNETS.TRANS_FUNC = "BottleneckWithFixedBatchNorm"
_C.MODEL.RESNETS.STEM_FUNC = "StemWithFixedBatchNorm"
_C.MODEL.RESNETS.RES5_DILATION = 1
# Output channels of the backbone: of C4, C5, or of every FPN map (also MobileNetV2's FPN).
_C.MODEL.RESNETS.BACKBONE_OUT_CHANNELS = 256 * 4
_C.MODEL.RESNETS.RES2_OUT_CHANNELS = 256
_C.MODEL.RESNETS.STEM_OUT_CHANNELS = 64
# Deformable 3x3 convolutions in layer1..layer4.
_C.MODEL.RESNETS.STAGE_WITH_DCN = (False, False, False, False)
_C.MODEL.RESNETS.WITH_MODULATED_DCN = False
_C.MODEL.RESNETS.DEFORMABLE_GROUPS = 1

_C.MODEL.VOVNET = CN()
# Not read by any fork; use MODEL.WEIGHT.
_C.MODEL.VOVNET.PRETRAINED = ""
_C.MODEL.VOVNET.USE_GN = False
# Channels of the first stage. Only checked: FPN gets its input channels from the body.
_C.MODEL.VOVNET.OUT_CHANNELS = 256
# Channels of every FPN map; FPNLite uses 128.
_C.MODEL.VOVNET.BACKBONE_OUT_CHANNELS = 256
# Deformable 3x3 convolutions in stage2..stage5.
_C.MODEL.VOVNET.STAGE_WITH_DCN = (False, False, False, False)
_C.MODEL.VOVNET.WITH_MODULATED_DCN = False
_C.MODEL.VOVNET.DEFORMABLE_GROUPS = 1
# Custom VoVNet (new); [] and 0 = the values of CONV_BODY. Three numbers for the stem, four for the stages: channels of
# the 3x3 convolutions, channels after aggregation, and blocks; and the number of convolutions per block.
_C.MODEL.VOVNET.STEM_CHANNELS = []
_C.MODEL.VOVNET.STAGE_CONV_CHANNELS = []
_C.MODEL.VOVNET.STAGE_OUT_CHANNELS = []
_C.MODEL.VOVNET.BLOCKS_PER_STAGE = []
_C.MODEL.VOVNET.LAYERS_PER_BLOCK = 0

# FBNet's 18 keys, accepted without effect so that other projects' files merge.
add_fbnet(_C.MODEL)

# Dense heads of one-stage detectors: see defaults_dense.py.
_C.MODEL.FCOS = FCOS
_C.MODEL.RETINANET = RETINANET

# ---------------------------------------------------------------------------------------------------------------------
# Region proposals
# ---------------------------------------------------------------------------------------------------------------------
_C.MODEL.RPN = CN()
_C.MODEL.RPN.USE_FPN = False
_C.MODEL.RPN.RPN_HEAD = "SingleConvRPNHead"
# In pixels of the network input. With FPN one size per level, else all sizes on one level.
_C.MODEL.RPN.ANCHOR_SIZES = (32, 64, 128, 256, 512)
_C.MODEL.RPN.ANCHOR_STRIDE = (16,)
# Height / width.
_C.MODEL.RPN.ASPECT_RATIOS = (0.5, 1.0, 2.0)
# Anchors that exceed the image by more than this many pixels are not trained; -1 = all are trained.
_C.MODEL.RPN.STRADDLE_THRESH = 0
_C.MODEL.RPN.FG_IOU_THRESHOLD = 0.7
_C.MODEL.RPN.BG_IOU_THRESHOLD = 0.3
_C.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 256
_C.MODEL.RPN.POSITIVE_FRACTION = 0.5
# Per level and image, before and after NMS. In all *_TOP_N* and DETECTIONS_PER_IMG keys, 0 and -1 mean no limit.
_C.MODEL.RPN.PRE_NMS_TOP_N_TRAIN = 12000
_C.MODEL.RPN.PRE_NMS_TOP_N_TEST = 6000
_C.MODEL.RPN.POST_NMS_TOP_N_TRAIN = 2000
_C.MODEL.RPN.POST_NMS_TOP_N_TEST = 1000
# For all NMS thresholds, 0 or less disables suppression.
_C.MODEL.RPN.NMS_THRESH = 0.7
_C.MODEL.RPN.MIN_SIZE = 0
# Over all levels together; in training per batch of a process, or per image if not FPN_POST_NMS_PER_BATCH.
_C.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN = 2000
_C.MODEL.RPN.FPN_POST_NMS_TOP_N_TEST = 2000
_C.MODEL.RPN.FPN_POST_NMS_PER_BATCH = True

# ---------------------------------------------------------------------------------------------------------------------
# ROI heads. POOLER_SCALES: 1 / stride of each map pooled from; POOLER_SAMPLING_RATIO 0 = adaptive. LEVEL_MAP_FUNCTION
# selects a region's map: "MASKRCNNLevelMapFunc" by its size (FPN), "CenterMaskLevelMapFunc" by its share of the image.
# ---------------------------------------------------------------------------------------------------------------------
_C.MODEL.ROI_HEADS = CN()
_C.MODEL.ROI_HEADS.USE_FPN = False
_C.MODEL.ROI_HEADS.FG_IOU_THRESHOLD = 0.5
_C.MODEL.ROI_HEADS.BG_IOU_THRESHOLD = 0.5
# For (dx, dy, dw, dh).
_C.MODEL.ROI_HEADS.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_C.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 512
_C.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.25
_C.MODEL.ROI_HEADS.SCORE_THRESH = 0.05
_C.MODEL.ROI_HEADS.NMS = 0.5
_C.MODEL.ROI_HEADS.DETECTIONS_PER_IMG = 100

# Cascade R-CNN (new), one entry per stage. All stages use the other keys of ROI_HEADS. Box regression is always
# class-agnostic, whatever CLS_AGNOSTIC_BBOX_REG is.
_C.MODEL.CASCADE = CN()
# Regions with at least this IoU are foreground, the others background.
_C.MODEL.CASCADE.IOU_THRESHOLDS = (0.5, 0.6, 0.7)
_C.MODEL.CASCADE.BBOX_REG_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
_C.MODEL.CASCADE.LOSS_WEIGHTS = (1.0, 0.5, 0.25)

_C.MODEL.ROI_BOX_HEAD = CN()
_C.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR = "ResNet50Conv5ROIFeatureExtractor"
_C.MODEL.ROI_BOX_HEAD.PREDICTOR = "FastRCNNPredictor"
_C.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 14
_C.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = 0
_C.MODEL.ROI_BOX_HEAD.POOLER_SCALES = (1.0 / 16,)
_C.MODEL.ROI_BOX_HEAD.LEVEL_MAP_FUNCTION = "MASKRCNNLevelMapFunc"
# Including the background; -1 = take it from the training data.
_C.MODEL.ROI_BOX_HEAD.NUM_CLASSES = 81
_C.MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM = 1024
_C.MODEL.ROI_BOX_HEAD.USE_GN = False
_C.MODEL.ROI_BOX_HEAD.DILATION = 1
_C.MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM = 256
_C.MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS = 4

_C.MODEL.ROI_MASK_HEAD = CN()
_C.MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR = "ResNet50Conv5ROIFeatureExtractor"
_C.MODEL.ROI_MASK_HEAD.PREDICTOR = "MaskRCNNC4Predictor"
_C.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14
_C.MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO = 0
_C.MODEL.ROI_MASK_HEAD.POOLER_SCALES = (1.0 / 16,)
_C.MODEL.ROI_MASK_HEAD.LEVEL_MAP_FUNCTION = "MASKRCNNLevelMapFunc"
_C.MODEL.ROI_MASK_HEAD.MLP_HEAD_DIM = 1024
_C.MODEL.ROI_MASK_HEAD.CONV_LAYERS = (256, 256, 256, 256)
# Side of the mask targets and of the predicted masks.
_C.MODEL.ROI_MASK_HEAD.RESOLUTION = 14
_C.MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR = True
# Paste masks into the image inside the model.
_C.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS = False
_C.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD = 0.5
_C.MODEL.ROI_MASK_HEAD.DILATION = 1
_C.MODEL.ROI_MASK_HEAD.USE_GN = False

_C.MODEL.ROI_MASKIOU_HEAD = CN()
_C.MODEL.ROI_MASKIOU_HEAD.FEATURE_EXTRACTOR = "MaskIoUFeatureExtractor"
_C.MODEL.ROI_MASKIOU_HEAD.PREDICTOR = "MaskIoUPredictor"
_C.MODEL.ROI_MASKIOU_HEAD.CONV_LAYERS = (256, 256, 256, 256)

_C.MODEL.ROI_KEYPOINT_HEAD = CN()
_C.MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR = "KeypointRCNNFeatureExtractor"
_C.MODEL.ROI_KEYPOINT_HEAD.PREDICTOR = "KeypointRCNNPredictor"
_C.MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION = 14
_C.MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO = 0
_C.MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES = (1.0 / 16,)
_C.MODEL.ROI_KEYPOINT_HEAD.LEVEL_MAP_FUNCTION = "MASKRCNNLevelMapFunc"
_C.MODEL.ROI_KEYPOINT_HEAD.MLP_HEAD_DIM = 1024
_C.MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS = (512, 512, 512, 512, 512, 512, 512, 512)
_C.MODEL.ROI_KEYPOINT_HEAD.RESOLUTION = 14
# Keypoints per object, without background.
_C.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES = 17
_C.MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR = True

# Heads for semantic maps: see defaults_semantic.py.
_C.MODEL.SEM_SEG_HEAD = SEM_SEG_HEAD
_C.MODEL.DEEPLAB = DEEPLAB
_C.MODEL.PANOPTIC_FPN = PANOPTIC_FPN

# Images and datasets: see defaults_data.py.
_C.INPUT = INPUT
_C.DATASETS = DATASETS
_C.DATALOADER = DATALOADER

# ---------------------------------------------------------------------------------------------------------------------
# Solver. Counts are optimizer steps ("iterations").
# ---------------------------------------------------------------------------------------------------------------------
_C.SOLVER = CN()
_C.SOLVER.MAX_ITER = 40000
# "SGD" or "AdamW" (new).
_C.SOLVER.OPTIMIZER = "SGD"
_C.SOLVER.BASE_LR = 0.001
_C.SOLVER.BIAS_LR_FACTOR = 2
# Learning rate factor for all parameters outside the backbone (new).
_C.SOLVER.HEAD_LR_FACTOR = 1.0
# Learning rate factor for the offset convolutions of deformable layers.
_C.SOLVER.DCONV_OFFSETS_LR_FACTOR = 1.0
# MOMENTUM is for SGD, BETAS for AdamW (new).
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.BETAS = (0.9, 0.999)
_C.SOLVER.WEIGHT_DECAY = 0.0005
_C.SOLVER.WEIGHT_DECAY_BIAS = 0
# Weight decay of trained norms, for SGD (new); -1 = that of other weights and biases.
_C.SOLVER.WEIGHT_DECAY_NORM = -1.0
# "multistep" (GAMMA at each of STEPS), "cosine" or "poly" (new).
_C.SOLVER.LR_SCHEDULER = "multistep"
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.STEPS = (30000,)
_C.SOLVER.POLY_POWER = 0.9
_C.SOLVER.WARMUP_FACTOR = 1.0 / 3
_C.SOLVER.WARMUP_ITERS = 500
# "constant" or "linear".
_C.SOLVER.WARMUP_METHOD = "linear"
# Maximum L2 norm of all gradients together (new); 0 = no clipping.
_C.SOLVER.CLIP_GRADIENTS = 0.0
# Images per iteration over all processes. ACCUMULATION_STEPS (new) divides them into parts that run one after another.
_C.SOLVER.IMS_PER_BATCH = 16
_C.SOLVER.ACCUMULATION_STEPS = 1
_C.SOLVER.CHECKPOINT_PERIOD = 2500
# Also save a checkpoint after this many minutes without one (new), and keep only the two newest of these; 0 = never.
_C.SOLVER.CHECKPOINT_MINUTES = 5.0
# Evaluate on DATASETS.TEST every this many iterations; 0 = only at the end.
_C.SOLVER.TEST_PERIOD = 0

# ---------------------------------------------------------------------------------------------------------------------
# Test
# ---------------------------------------------------------------------------------------------------------------------
_C.TEST = CN()
# Entries [task, metric, [mean, std]]: each result is logged as PASS or FAIL within SIGMA_TOL standard deviations.
_C.TEST.EXPECTED_RESULTS = []
_C.TEST.EXPECTED_RESULTS_SIGMA_TOL = 4
# Exit with a status other than 0 if a result is a FAIL (new).
_C.TEST.FAIL_ON_UNEXPECTED_RESULTS = False
# Images per batch over all processes.
_C.TEST.IMS_PER_BATCH = 8
# Run backbone and heads through torch.compile: takes some ten seconds before the first image of every test, and saves a
# fifth of the time per image on a CPU (new).
_C.TEST.COMPILE = False
# For dense heads (FCOS, RetinaNet), also if FCOS feeds ROI heads; two-stage models use ROI_HEADS.DETECTIONS_PER_IMG.
_C.TEST.DETECTIONS_PER_IMG = 100

# Test-time augmentation: the image at the test size, flipped with H_FLIP, and at each of SCALES (shorter side; the
# longer one at most MAX_SIZE), flipped with SCALE_H_FLIP. Masks and keypoints are averaged over all views.
_C.TEST.BBOX_AUG = CN()
_C.TEST.BBOX_AUG.ENABLED = False
_C.TEST.BBOX_AUG.H_FLIP = False
_C.TEST.BBOX_AUG.SCALES = ()
_C.TEST.BBOX_AUG.MAX_SIZE = 4000
_C.TEST.BBOX_AUG.SCALE_H_FLIP = False

_C.TEST.SEMANTIC = TEST_SEMANTIC

# CenterMask's names for keys of FCOS's improvements.
_C.register_renamed_key("MODEL.FCOS.CENTER_SAMPLE", "MODEL.FCOS.CENTER_SAMPLING_RADIUS", "A radius of 0 is False.")
_C.register_renamed_key("MODEL.FCOS.POS_RADIUS", "MODEL.FCOS.CENTER_SAMPLING_RADIUS")
_C.register_renamed_key("MODEL.FCOS.LOC_LOSS_TYPE", "MODEL.FCOS.IOU_LOSS_TYPE")
