"""Compare every config of CenterMask2 and CenterMask with ours, which builds and has no setting without effect."""

import ast
import copy
import gzip
import json
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.checkpoint.matching import match_state_dicts
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config.checks import check_values
from maskrcnn_benchmark.config.notes import notes
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.detector.strides import check_strides

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "vovnet" / "centermask"
RECORDED = json.loads(gzip.decompress((ROOT / "tests" / "golden" / "centermask" / "configs.json.gz").read_bytes()))
FILES = sorted(path for path in FOLDER.glob("v?/*.yaml") if not path.name.startswith("Base-"))


def merged(path):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_file(path)
    return cfg


def plain(value):
    if isinstance(value, str) and value.startswith("("):
        value = ast.literal_eval(value)
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def value_at(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return plain(cfg)


def body(cfg):
    return cfg.MODEL.BACKBONE.CONV_BODY.split("-FPN")[0]


def channels(cfg):
    return cfg.MODEL.VOVNET.BACKBONE_OUT_CHANNELS if body(cfg)[0] == "V" else cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS


def features(cfg):
    first = 2 if cfg.MODEL.BACKBONE.CONV_BODY.endswith("-FPN-P2P7") else 3
    return [("stage" if body(cfg)[0] == "V" else "res") + str(i) for i in range(first, 6)]


def weight(cfg):
    """CenterMask2's addresses of Detectron's ResNets, as catalog names."""
    name = cfg.MODEL.WEIGHT
    if name.startswith("catalog://"):
        name = name.replace("catalog://", "detectron2://").replace("FAIR/20171220", "MSRA") + ".pkl"
    return name


NAMES = {"v1": "centermask", "v2": "centermask2"}
LEVELS = {8: "p3", 16: "p4", 32: "p5"}
SAME = (
    *("DATASETS.TRAIN", "DATASETS.TEST", "INPUT.MAX_SIZE_TEST", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST"),
    *("INPUT.MIN_SIZE_TRAIN", "MODEL.MASKIOU_ON", "MODEL.MASK_ON", "MODEL.META_ARCHITECTURE"),
    *("MODEL.RESNETS.NUM_GROUPS",),
    *("MODEL.RESNETS.STRIDE_IN_1X1", "MODEL.RESNETS.WIDTH_PER_GROUP", "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION"),
    *("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "MODEL.VOVNET.DEFORMABLE_GROUPS", "MODEL.VOVNET.STAGE_WITH_DCN"),
    *("MODEL.VOVNET.WITH_MODULATED_DCN", "OUTPUT_DIR", "SOLVER.BASE_LR", "SOLVER.CHECKPOINT_PERIOD"),
    *("SOLVER.IMS_PER_BATCH", "SOLVER.MAX_ITER", "SOLVER.STEPS"),
)
# CenterMask2's key -> its value as our config says it
V2 = {key: lambda cfg, key=key: value_at(cfg, key) for key in SAME} | {
    "MODEL.WEIGHTS": weight,
    "MODEL.PIXEL_STD": lambda cfg: cfg.INPUT.PIXEL_STD,
    "MODEL.BACKBONE.FREEZE_AT": lambda cfg: cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT,
    "MODEL.BACKBONE.NAME": lambda cfg: {
        "V": "build_fcos_vovnet_fpn_backbone",
        "R": "build_fcos_resnet_fpn_backbone",
        "M": "build_fcos_mobilenetv2_fpn_backbone",
    }[body(cfg)[0]],
    "MODEL.VOVNET.CONV_BODY": lambda cfg: f"V-{body(cfg)[3:]}-eSE",
    "MODEL.VOVNET.OUT_FEATURES": features,
    "MODEL.RESNETS.OUT_FEATURES": features,
    "MODEL.RESNETS.DEPTH": lambda cfg: int(body(cfg)[2:]),
    "MODEL.FPN.IN_FEATURES": features,
    "MODEL.FPN.OUT_CHANNELS": channels,
    "MODEL.PROPOSAL_GENERATOR.NAME": lambda cfg: "FCOS" if cfg.MODEL.FCOS_ON else "RPN",
    "MODEL.FCOS.NUM_BOX_CONVS": lambda cfg: cfg.MODEL.FCOS.NUM_CONVS,
    "MODEL.FCOS.NUM_CLS_CONVS": lambda cfg: cfg.MODEL.FCOS.NUM_CONVS,
    "MODEL.FCOS.POST_NMS_TOPK_TEST": lambda cfg: cfg.TEST.DETECTIONS_PER_IMG,
    "MODEL.ROI_HEADS.NAME": lambda cfg: "CenterROIHeads" if cfg.MODEL.FCOS_MASK else "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": lambda cfg: [
        LEVELS[round(1 / scale)] for scale in cfg.MODEL.ROI_MASK_HEAD.POOLER_SCALES
    ],
    "MODEL.ROI_MASK_HEAD.NAME": lambda cfg: {"MaskRCNNFPNSpatialAttentionFeatureExtractor": "SpatialAttentionMaskHead"}[
        cfg.MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR
    ],
    "MODEL.ROI_MASK_HEAD.ASSIGN_CRITERION": lambda cfg: {"CenterMaskLevelMapFunc": "ratio"}[
        cfg.MODEL.ROI_MASK_HEAD.LEVEL_MAP_FUNCTION
    ],
    "MODEL.ROI_MASK_HEAD.NUM_CONV": lambda cfg: len(cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS),
    "MODEL.ROI_MASK_HEAD.CONV_DIM": lambda cfg: cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS[0],
    "MODEL.ROI_MASKIOU_HEAD.NUM_CONV": lambda cfg: len(cfg.MODEL.ROI_MASKIOU_HEAD.CONV_LAYERS),
    "MODEL.ROI_MASKIOU_HEAD.CONV_DIM": lambda cfg: cfg.MODEL.ROI_MASKIOU_HEAD.CONV_LAYERS[0],
}
# CenterMask's keys with another name here
V1 = {
    "MODEL.BACKBONE.CONV_BODY": lambda cfg: (
        f"V-{body(cfg)[3:]}-eSE-FPN-RETINANET" if body(cfg)[0] == "V" else cfg.MODEL.BACKBONE.CONV_BODY
    ),
    "MODEL.FCOS.CENTER_SAMPLE": lambda cfg: cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS > 0,
    "MODEL.FCOS.POS_RADIUS": lambda cfg: cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS,
    "MODEL.FCOS.LOC_LOSS_TYPE": lambda cfg: cfg.MODEL.FCOS.IOU_LOSS_TYPE,
}


def test_every_config_of_both_is_shipped():
    for version, count in (("v2", 20), ("v1", 27)):
        names = {path.name for path in FILES if path.parent.name == version}
        assert names == set(RECORDED[version]) and len(names) == count


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_means_what_the_original_meant_and_builds(path):
    cfg, version = merged(path), path.parent.name
    check_values(cfg, is_train=True)
    assert not notes(cfg, defaults)
    assert cfg.MODEL.CONVENTION == NAMES[version]
    different = {}
    for key, wanted in RECORDED[version][path.name].items():
        if version == "v2":
            found = V2[key](cfg)
        else:
            found = V1[key](cfg) if key in V1 else value_at(cfg, key)
        if found != plain(wanted):
            different[key] = (found, wanted)
    assert not different
    if version == "v1":
        assert cfg.MODEL.MASKIOU_ON == RECORDED["v1"][path.name].get("MODEL.MASKIOU_ON", False)
    with torch.device("meta"):
        model = build_detection_model(cfg)
    check_strides(cfg, model)
    assert ("maskiou" in model.roi_heads) == cfg.MODEL.MASKIOU_ON and "box" not in model.roi_heads
    assert model.backbone.fpn.top_blocks.use_P5
    theirs, left_out = convert_state_dict(model.state_dict(), NAMES[version])
    assert not left_out
    if version == "v2":
        assert not any(key.startswith(("backbone.body.", "rpn.", "roi_heads.mask.")) for key in theirs)
    check_a_checkpoint_is_loaded_and_written_back(model, theirs, version)
    deformable = [name for name, module in model.named_modules() if type(module).__name__ == "DFConv2d"]
    assert bool(deformable) == any(cfg.MODEL.VOVNET.STAGE_WITH_DCN)


def check_a_checkpoint_is_loaded_and_written_back(model, on_meta, version):
    """Load a checkpoint with these names and shapes, whose rows differ, into the model's names, and convert it back."""
    theirs = {key: rows(tensor.shape) for key, tensor in on_meta.items()}
    report = match_state_dicts(model.state_dict(), theirs)
    assert not report.missing and not report.unused and not report.mismatched
    ours = to_ours(theirs).tensors
    assert [(k, t.shape) for k, t in ours.items()] == [(k, t.shape) for k, t in model.state_dict().items()]
    again, left_out = convert_state_dict(ours, NAMES[version])
    assert not left_out and list(again) == list(theirs)
    assert all(torch.equal(again[key], tensor) for key, tensor in theirs.items())


def rows(shape):
    """Return a tensor of this shape with another number in each row."""
    return torch.arange(1.0 * shape[0]).reshape(-1, *[1] * (len(shape) - 1)).expand(shape) if shape else torch.ones(())


@pytest.mark.parametrize(
    "key, ours",
    [
        ("CENTER_SAMPLE", "CENTER_SAMPLING_RADIUS"),
        ("POS_RADIUS", "CENTER_SAMPLING_RADIUS"),
        ("LOC_LOSS_TYPE", "IOU_LOSS_TYPE"),
    ],
)
def test_centermasks_names_of_our_keys_are_explained(key, ours):
    with pytest.raises(KeyError, match=f"MODEL.FCOS.{key} was renamed to MODEL.FCOS.{ours}"):
        copy.deepcopy(defaults).merge_from_list([f"MODEL.FCOS.{key}", 1])


def test_files_are_a_few_lines_on_a_base():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 20 and "_BASE_" in path.read_text()
