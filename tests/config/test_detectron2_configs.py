"""Every config of vovnet-detectron2: each of detectron2's keys is expressed by ours, or is fixed in the code."""

import copy
import gzip
import json
from pathlib import Path

import pytest

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config import check_values
from maskrcnn_benchmark.config.checks import CHOICES
from maskrcnn_benchmark.config.convention import CONVENTIONS
from maskrcnn_benchmark.modeling.poolers import make_pooler

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "vovnet" / "v2"
RECORDED = json.loads(gzip.decompress((ROOT / "tests" / "golden" / "d2" / "configs.json.gz").read_bytes()))

LEVELS = {4: "p2", 8: "p3", 16: "p4", 32: "p5", 64: "p6"}


def body(cfg):
    """Return detectron2's (BACKBONE.NAME, VOVNET.CONV_BODY, FPN.OUT_CHANNELS) for our CONV_BODY."""
    name, _, form = cfg.MODEL.BACKBONE.CONV_BODY.rpartition("-")
    assert form in ("FPN", "FPNLite")
    if name == "MNV2":
        channels, kind, vovnet = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS, "mobilenetv2", "V-39-eSE"
    else:
        assert name.startswith("V2-")
        channels, kind, vovnet = cfg.MODEL.VOVNET.BACKBONE_OUT_CHANNELS, "vovnet", f"V-{name[3:]}-eSE"
    return f"build_{kind}_fpn_backbone", vovnet, 128 if form == "FPNLite" else channels


def features(cfg):
    return [("res" if "mobilenet" in body(cfg)[0] else "stage") + str(i) for i in range(2, 6)]


def pooled_levels(node):
    return [LEVELS[round(1 / scale)] for scale in node.POOLER_SCALES]


def convention(cfg):
    return CONVENTIONS[cfg.MODEL.CONVENTION]


def pooler_type(head):
    return lambda cfg: "ROIAlignV2" if make_pooler(cfg, head).aligned else "ROIAlign"


def same(*keys):
    """Return the table entries of keys with the same name in both projects."""
    return {key: (lambda cfg, key=key: value_at(cfg, key)) for key in keys}


def value_at(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


# detectron2's key -> its value computed from our config
MEANING = same(
    "MODEL.META_ARCHITECTURE",
    "MODEL.MASK_ON",
    "MODEL.KEYPOINT_ON",
    "MODEL.DEVICE",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
    "MODEL.RPN.POSITIVE_FRACTION",
    "MODEL.RPN.NMS_THRESH",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT",
    "MODEL.SEM_SEG_HEAD.NORM",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT",
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH",
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH",
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT",
    "INPUT.MIN_SIZE_TRAIN",
    "INPUT.MAX_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "DATASETS.TRAIN",
    "DATASETS.TEST",
    "DATALOADER.ASPECT_RATIO_GROUPING",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.BASE_LR",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.GAMMA",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.MAX_ITER",
    "SOLVER.MOMENTUM",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_FACTOR",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.WARMUP_METHOD",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.WEIGHT_DECAY_NORM",
    "OUTPUT_DIR",
    "TEST.EXPECTED_RESULTS",
) | {
    "MODEL.WEIGHTS": lambda cfg: cfg.MODEL.WEIGHT,
    "MODEL.PIXEL_MEAN": lambda cfg: cfg.INPUT.PIXEL_MEAN,
    "MODEL.PIXEL_STD": lambda cfg: cfg.INPUT.PIXEL_STD,
    "INPUT.FORMAT": lambda cfg: "BGR" if cfg.INPUT.TO_BGR255 else "RGB",
    "INPUT.RANDOM_FLIP": lambda cfg: {0.5: "horizontal", 0.0: "none"}[cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN],
    "MODEL.BACKBONE.NAME": lambda cfg: body(cfg)[0],
    "MODEL.BACKBONE.FREEZE_AT": lambda cfg: cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT,
    "MODEL.VOVNET.CONV_BODY": lambda cfg: body(cfg)[1],
    "MODEL.VOVNET.NORM": lambda cfg: cfg.MODEL.BACKBONE.NORM,
    "MODEL.RESNETS.NORM": lambda cfg: cfg.MODEL.BACKBONE.NORM,
    # MobileNetV2's FPN reads the names of its maps from this key
    "MODEL.RESNETS.OUT_FEATURES": lambda cfg: features(cfg) if "mobilenet" in body(cfg)[0] else ["res4"],
    "MODEL.FPN.OUT_CHANNELS": lambda cfg: body(cfg)[2],
    "MODEL.FPN.NORM": lambda cfg: "GN" if cfg.MODEL.FPN.USE_GN else "",
    "MODEL.FPN.IN_FEATURES": features,
    "MODEL.ANCHOR_GENERATOR.SIZES": lambda cfg: [[size] for size in cfg.MODEL.RPN.ANCHOR_SIZES],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": lambda cfg: [cfg.MODEL.RPN.ASPECT_RATIOS],
    "MODEL.ANCHOR_GENERATOR.OFFSET": lambda cfg: 0.5 if convention(cfg).anchor_at_cell_center else 0.0,
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": lambda cfg: cfg.MODEL.RPN.MIN_SIZE,
    "MODEL.RPN.IN_FEATURES": lambda cfg: [LEVELS[stride] for stride in cfg.MODEL.RPN.ANCHOR_STRIDE],
    "MODEL.RPN.IOU_THRESHOLDS": lambda cfg: [cfg.MODEL.RPN.BG_IOU_THRESHOLD, cfg.MODEL.RPN.FG_IOU_THRESHOLD],
    "MODEL.RPN.BOUNDARY_THRESH": lambda cfg: cfg.MODEL.RPN.STRADDLE_THRESH,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": lambda cfg: cfg.MODEL.RPN.PRE_NMS_TOP_N_TRAIN,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": lambda cfg: cfg.MODEL.RPN.PRE_NMS_TOP_N_TEST,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": lambda cfg: cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN,
    "MODEL.RPN.POST_NMS_TOPK_TEST": lambda cfg: cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TEST,
    "MODEL.RPN.SMOOTH_L1_BETA": lambda cfg: convention(cfg).rpn_beta,
    "MODEL.ROI_HEADS.NUM_CLASSES": lambda cfg: cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES - 1,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": lambda cfg: list(
        {cfg.MODEL.ROI_HEADS.FG_IOU_THRESHOLD, cfg.MODEL.ROI_HEADS.BG_IOU_THRESHOLD}
    ),
    "MODEL.ROI_HEADS.IN_FEATURES": lambda cfg: pooled_levels(cfg.MODEL.ROI_BOX_HEAD),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": lambda cfg: cfg.MODEL.ROI_HEADS.SCORE_THRESH,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": lambda cfg: cfg.MODEL.ROI_HEADS.NMS,
    "TEST.DETECTIONS_PER_IMAGE": lambda cfg: cfg.MODEL.ROI_HEADS.DETECTIONS_PER_IMG,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": pooler_type("ROI_BOX_HEAD"),
    "MODEL.ROI_BOX_HEAD.FC_DIM": lambda cfg: cfg.MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM,
    "MODEL.ROI_BOX_HEAD.NUM_FC": lambda cfg: {"FPN2MLPFeatureExtractor": 2}[cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR],
    "MODEL.ROI_BOX_HEAD.NORM": lambda cfg: "GN" if cfg.MODEL.ROI_BOX_HEAD.USE_GN else "",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": lambda cfg: cfg.MODEL.ROI_HEADS.BBOX_REG_WEIGHTS,
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": lambda cfg: cfg.MODEL.CLS_AGNOSTIC_BBOX_REG,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": lambda cfg: convention(cfg).box_beta,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": pooler_type("ROI_MASK_HEAD"),
    "MODEL.ROI_MASK_HEAD.NUM_CONV": lambda cfg: len(cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS),
    "MODEL.ROI_MASK_HEAD.CONV_DIM": lambda cfg: cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS[0],
    "MODEL.ROI_MASK_HEAD.NORM": lambda cfg: "GN" if cfg.MODEL.ROI_MASK_HEAD.USE_GN else "",
    "SOLVER.WEIGHT_DECAY_BIAS": lambda cfg: (
        None if cfg.SOLVER.WEIGHT_DECAY_BIAS == cfg.SOLVER.WEIGHT_DECAY else cfg.SOLVER.WEIGHT_DECAY_BIAS
    ),
    "SOLVER.CLIP_GRADIENTS.ENABLED": lambda cfg: cfg.SOLVER.CLIP_GRADIENTS > 0,
    "SOLVER.AMP.ENABLED": lambda cfg: cfg.DTYPE != "float32",
    "SOLVER.LR_SCHEDULER_NAME": lambda cfg: {"multistep": "WarmupMultiStepLR"}[cfg.SOLVER.LR_SCHEDULER],
    "TEST.EVAL_PERIOD": lambda cfg: cfg.SOLVER.TEST_PERIOD,
    "TEST.AUG.ENABLED": lambda cfg: cfg.TEST.BBOX_AUG.ENABLED,
}

# Values that are fixed in these models, whatever our config has.
ALWAYS = {
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.LOAD_PROPOSALS": False,
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.RPN.CONV_DIMS": [-1],
    "MODEL.RPN.IOU_LABELS": [0, -1, 1],
    "MODEL.RPN.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.RPN.LOSS_WEIGHT": 1.0,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IOU_LABELS": [0, 1],
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": True,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": False,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "MODEL.SEM_SEG_HEAD.NAME": "SemSegFPNHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.PANOPTIC_FPN.COMBINE.ENABLED": True,
    "INPUT.CROP.ENABLED": False,
    "INPUT.MASK_FORMAT": "polygon",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": True,
    "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    "SOLVER.NESTEROV": False,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "TEST.PRECISE_BN.ENABLED": False,
    # detectron2 draws a new seed for every run; ours is fixed and logged
    "SEED": -1,
}

# Keys that none of these models reads; they have detectron2's defaults in all files.
UNREAD = (
    *("CUDNN_BENCHMARK", "FLOAT32_PRECISION", "GLOBAL.", "VERSION", "VIS_PERIOD", "DATALOADER.REPEAT_"),
    *("DATASETS.PRECOMPUTED_", "DATASETS.PROPOSAL_FILES_", "INPUT.CROP.", "MODEL.ANCHOR_GENERATOR.ANGLES"),
    *("MODEL.RETINANET.", "MODEL.ROI_BOX_CASCADE_HEAD.", "MODEL.ROI_KEYPOINT_HEAD.", "MODEL.ROI_BOX_HEAD.CONV_DIM"),
    *("MODEL.ROI_BOX_HEAD.FED_LOSS_", "SOLVER.BASE_LR_END", "SOLVER.CLIP_GRADIENTS.", "SOLVER.NUM_DECAYS"),
    *("SOLVER.RESCALE_INTERVAL", "TEST.AUG.", "TEST.KEYPOINT_OKS_SIGMAS", "TEST.PRECISE_BN."),
    *("MODEL.VOVNET.OUT_CHANNELS", "MODEL.VOVNET.BACKBONE_OUT_CHANNELS", "MODEL.VOVNET.OUT_FEATURES"),
)
# for bodies that these models have not
RESNETS = "MODEL.RESNETS."

FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name in RECORDED["configs"])


def lists(value):
    return [lists(v) for v in value] if isinstance(value, (tuple, list)) else value


def merged(path):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_file(path)
    return cfg


def test_every_config_is_shipped():
    assert {path.name for path in FILES} == set(RECORDED["configs"])
    assert len(RECORDED["configs"]) == 16 + 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_is_equivalent_to_detectron2s(path):
    cfg = merged(path)
    check_values(cfg)
    assert cfg.MODEL.CONVENTION == "detectron2"
    theirs = RECORDED["defaults"] | RECORDED["configs"][path.name]
    if path.stem.startswith("Base-"):
        theirs = {key: value for key, value in theirs.items() if key not in ("MODEL.WEIGHTS", "OUTPUT_DIR")}
    different = {}
    for key, wanted in theirs.items():
        if key in MEANING:
            found = lists(MEANING[key](cfg))
        elif key in ALWAYS:
            found = ALWAYS[key]
        else:
            found = RECORDED["defaults"][key] if key.startswith((*UNREAD, RESNETS)) else "not considered"
        if found != wanted:
            different[key] = (found, wanted)
    assert not different


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_proposals_are_limited_only_per_image(path):
    cfg = merged(path)
    rpn = cfg.MODEL.RPN
    assert rpn.USE_FPN and cfg.MODEL.ROI_HEADS.USE_FPN and not rpn.FPN_POST_NMS_PER_BATCH
    assert rpn.POST_NMS_TOP_N_TRAIN >= rpn.FPN_POST_NMS_TOP_N_TRAIN
    assert rpn.POST_NMS_TOP_N_TEST >= rpn.FPN_POST_NMS_TOP_N_TEST
    assert cfg.DATALOADER.SIZE_DIVISIBILITY == CONVENTIONS["detectron2"].size_divisibility
    assert cfg.MODEL.ROI_MASK_HEAD.RESOLUTION == 2 * cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
    assert pooled_levels(cfg.MODEL.ROI_MASK_HEAD) == pooled_levels(cfg.MODEL.ROI_BOX_HEAD)


def test_files_have_a_few_lines_and_a_base():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 12 and "_BASE_" in path.read_text()


def test_choices_of_the_convention_equal_the_table():
    assert CHOICES["MODEL.CONVENTION"] == tuple(CONVENTIONS)
