"""Every config of mmdetection-vovnet: each of mmdetection's keys is expressed by ours, or is fixed in the code."""

import copy
import gzip
import json
import re
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config import check_values
from maskrcnn_benchmark.config.convention import CONVENTIONS
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.roi_heads.stage import cascade_stages

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "configs" / "vovnet" / "mmdet"
RECORDED = json.loads(gzip.decompress((ROOT / "tests" / "golden" / "mmdet" / "configs.json.gz").read_bytes()))
# iterations per epoch: COCO has 117,266 annotated images; batches of 16 do not mix wide and tall ones
EPOCH = 7330


_BACKBONES: dict[str, torch.nn.Module] = {}


def backbone(cfg):
    """Build the backbone of a config, once for each body."""
    name = cfg.MODEL.BACKBONE.CONV_BODY
    if name not in _BACKBONES:
        with torch.device("meta"):
            _BACKBONES[name] = build_backbone(cfg)
    return _BACKBONES[name]


def convention(cfg):
    return CONVENTIONS[cfg.MODEL.CONVENTION]


def strides(node):
    return [round(1 / scale) for scale in node.POOLER_SCALES]


def only(values):
    """Return the value of a sequence of equal values."""
    assert len(set(values)) == 1
    return values[0]


def stds(stage):
    return [1 / weight for weight in stage.MODEL.ROI_HEADS.BBOX_REG_WEIGHTS]


def in_255(values):
    return [255 * value for value in values]


def kind(cfg):
    return {
        (False, False): "FasterRCNN",
        (True, False): "MaskRCNN",
    }.get((cfg.MODEL.MASK_ON, cfg.MODEL.CASCADE_ON), "CascadeRCNN")


def body(cfg):
    return re.fullmatch(r"V2-(.*)-mmdet-FPN", cfg.MODEL.BACKBONE.CONV_BODY)[1]


PIPELINE = r"(data\.train\.|data\.val\.|data\.test\.|train_|test_)pipeline\[\d\](\.transforms\[\d\])?\."
# pattern of mmdetection's key -> its value computed from our config; for a cascade from the config of its stage
MEANING = {
    r"model\.type": kind,
    r"model\.num_stages": lambda cfg: len(cfg.MODEL.CASCADE.IOU_THRESHOLDS),
    r"model\.backbone\.model_name": lambda cfg: f"vovnet-{body(cfg)}",
    r"model\.neck\.in_channels": lambda cfg: list(backbone(cfg).body.out_channels),
    r"model\.(neck\.out|rpn_head\.in|rpn_head\.feat|bbox_head\.in|mask_head\.in)_channels": lambda cfg: (
        backbone(cfg).out_channels
    ),
    r"model\.\w+_roi_extractor\.out_channels": lambda cfg: cfg.MODEL.VOVNET.BACKBONE_OUT_CHANNELS,
    r"model\.neck\.num_outs": lambda cfg: len(cfg.MODEL.RPN.ANCHOR_STRIDE),
    r"model\.rpn_head\.anchor_strides": lambda cfg: cfg.MODEL.RPN.ANCHOR_STRIDE,
    r"model\.rpn_head\.anchor_ratios": lambda cfg: cfg.MODEL.RPN.ASPECT_RATIOS,
    r"model\.rpn_head\.anchor_scales": lambda cfg: [
        only([a / b for a, b in zip(cfg.MODEL.RPN.ANCHOR_SIZES, cfg.MODEL.RPN.ANCHOR_STRIDE, strict=True)])
    ],
    r"model\.rpn_head\.loss_bbox\.beta": lambda cfg: convention(cfg).rpn_beta,
    r"model\.bbox_roi_extractor\.featmap_strides": lambda cfg: strides(cfg.MODEL.ROI_BOX_HEAD),
    r"model\.bbox_roi_extractor\.roi_layer\.out_size": lambda cfg: cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
    r"model\.bbox_roi_extractor\.roi_layer\.sample_num": lambda cfg: cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
    r"model\.bbox_head\.fc_out_channels": lambda cfg: cfg.MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM,
    r"model\.bbox_head\.roi_feat_size": lambda cfg: cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
    r"model\.(bbox|mask)_head\.num_classes": lambda cfg: cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES,
    r"model\.bbox_head\.reg_class_agnostic": lambda cfg: cfg.MODEL.CLS_AGNOSTIC_BBOX_REG,
    r"model\.bbox_head\.target_stds": stds,
    r"model\.bbox_head\.loss_bbox\.beta": lambda cfg: convention(cfg).box_beta,
    r"model\.mask_roi_extractor\.featmap_strides": lambda cfg: strides(cfg.MODEL.ROI_MASK_HEAD),
    r"model\.mask_roi_extractor\.roi_layer\.out_size": lambda cfg: cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION,
    r"model\.mask_roi_extractor\.roi_layer\.sample_num": lambda cfg: cfg.MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO,
    r"model\.mask_head\.num_convs": lambda cfg: len(cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS),
    r"model\.mask_head\.conv_out_channels": lambda cfg: only(cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS),
    r"train_cfg\.rpn\.assigner\.pos_iou_thr": lambda cfg: cfg.MODEL.RPN.FG_IOU_THRESHOLD,
    # the minimum IoU of a ground-truth box's best match is the background threshold: best_matches_kept
    r"train_cfg\.rpn\.assigner\.(neg_iou_thr|min_pos_iou)": lambda cfg: cfg.MODEL.RPN.BG_IOU_THRESHOLD,
    r"train_cfg\.rpn\.sampler\.num": lambda cfg: cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE,
    r"train_cfg\.rpn\.sampler\.pos_fraction": lambda cfg: cfg.MODEL.RPN.POSITIVE_FRACTION,
    r"train_cfg\.rpn\.allowed_border": lambda cfg: cfg.MODEL.RPN.STRADDLE_THRESH,
    r"train_cfg\.rpn_proposal\.nms_pre": lambda cfg: cfg.MODEL.RPN.PRE_NMS_TOP_N_TRAIN,
    r"train_cfg\.rpn_proposal\.nms_post": lambda cfg: cfg.MODEL.RPN.POST_NMS_TOP_N_TRAIN,
    r"train_cfg\.rpn_proposal\.max_num": lambda cfg: cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN,
    r"test_cfg\.rpn\.nms_pre": lambda cfg: cfg.MODEL.RPN.PRE_NMS_TOP_N_TEST,
    r"test_cfg\.rpn\.nms_post": lambda cfg: cfg.MODEL.RPN.POST_NMS_TOP_N_TEST,
    r"test_cfg\.rpn\.max_num": lambda cfg: cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TEST,
    r"(train_cfg\.rpn_proposal|test_cfg\.rpn)\.nms_thr": lambda cfg: cfg.MODEL.RPN.NMS_THRESH,
    r"(train_cfg\.rpn_proposal|test_cfg\.rpn)\.min_bbox_size": lambda cfg: cfg.MODEL.RPN.MIN_SIZE,
    r"train_cfg\.rcnn\.assigner\.pos_iou_thr": lambda cfg: cfg.MODEL.ROI_HEADS.FG_IOU_THRESHOLD,
    r"train_cfg\.rcnn\.assigner\.(neg_iou_thr|min_pos_iou)": lambda cfg: cfg.MODEL.ROI_HEADS.BG_IOU_THRESHOLD,
    r"train_cfg\.rcnn\.sampler\.num": lambda cfg: cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE,
    r"train_cfg\.rcnn\.sampler\.pos_fraction": lambda cfg: cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION,
    r"train_cfg\.rcnn\.mask_size": lambda cfg: cfg.MODEL.ROI_MASK_HEAD.RESOLUTION,
    r"train_cfg\.stage_loss_weights": lambda cfg: cfg.MODEL.CASCADE.LOSS_WEIGHTS,
    r"test_cfg\.rcnn\.score_thr": lambda cfg: cfg.MODEL.ROI_HEADS.SCORE_THRESH,
    r"test_cfg\.rcnn\.nms\.iou_thr": lambda cfg: cfg.MODEL.ROI_HEADS.NMS,
    r"test_cfg\.rcnn\.max_per_img": lambda cfg: cfg.MODEL.ROI_HEADS.DETECTIONS_PER_IMG,
    r"test_cfg\.rcnn\.mask_thr_binary": lambda cfg: cfg.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD,
    r"optimizer\.type": lambda cfg: cfg.SOLVER.OPTIMIZER,
    r"optimizer\.lr": lambda cfg: only([cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR * cfg.SOLVER.BIAS_LR_FACTOR]),
    r"optimizer\.momentum": lambda cfg: cfg.SOLVER.MOMENTUM,
    r"optimizer\.weight_decay": lambda cfg: only([cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_BIAS]),
    r"optimizer_config\.grad_clip\.max_norm": lambda cfg: cfg.SOLVER.CLIP_GRADIENTS,
    r"lr_config\.step": lambda cfg: [step / EPOCH for step in cfg.SOLVER.STEPS],
    r"lr_config\.policy": lambda cfg: {"multistep": "step"}[cfg.SOLVER.LR_SCHEDULER],
    r"lr_config\.warmup": lambda cfg: cfg.SOLVER.WARMUP_METHOD,
    r"lr_config\.warmup_iters": lambda cfg: cfg.SOLVER.WARMUP_ITERS,
    r"lr_config\.warmup_ratio": lambda cfg: cfg.SOLVER.WARMUP_FACTOR,
    r"total_epochs": lambda cfg: cfg.SOLVER.MAX_ITER / EPOCH,
    r"checkpoint_config\.interval": lambda cfg: cfg.SOLVER.CHECKPOINT_PERIOD / EPOCH,
    r"data\.imgs_per_gpu": lambda cfg: cfg.SOLVER.IMS_PER_BATCH / 8,  # its learning rate is for 8 GPUs
    r"data\.workers_per_gpu": lambda cfg: cfg.DATALOADER.NUM_WORKERS,
    r"data\.(train|val|test)\.ann_file": lambda cfg: "data/coco/annotations/instances_{}2017.json",
    r"data\.(train|val|test)\.img_prefix": lambda cfg: "data/coco/{}2017/",
    rf"{PIPELINE}img_scale": lambda cfg: [
        only([cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TEST]),
        only([*cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST]),
    ],
    rf"{PIPELINE}flip_ratio": lambda cfg: cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN,
    rf"({PIPELINE}|img_norm_cfg\.)mean": lambda cfg: in_255(cfg.INPUT.PIXEL_MEAN),
    rf"({PIPELINE}|img_norm_cfg\.)std": lambda cfg: in_255(cfg.INPUT.PIXEL_STD),
    rf"({PIPELINE}|img_norm_cfg\.)to_rgb": lambda cfg: not cfg.INPUT.TO_BGR255,
    rf"{PIPELINE}size_divisor": lambda cfg: only([cfg.DATALOADER.SIZE_DIVISIBILITY, convention(cfg).size_divisibility]),
    rf"{PIPELINE}with_mask": lambda cfg: cfg.MODEL.MASK_ON,
    r"evaluation\.metric": lambda cfg: ["bbox", "segm"] if cfg.MODEL.MASK_ON else "bbox",
    r"work_dir": lambda cfg: f"./{cfg.OUTPUT_DIR}",
}

# Values that are fixed in the code.
ALWAYS = {
    r"model\.(backbone|neck|\w+_head|\w+_roi_extractor)\.type": None,
    r"model\.\w+_roi_extractor\.roi_layer\.type": "RoIAlign",
    r"model\.\w+_head\.target_means": [0.0] * 4,
    r"model\.rpn_head\.target_stds": [1.0] * 4,
    r"model\.bbox_head\.num_fcs": 2,
    r"model\.\w+_head\.loss_(cls|bbox|mask)\.type": None,
    r"model\.\w+_head\.loss_(cls|bbox|mask)\.loss_weight": 1.0,
    r"model\.rpn_head\.loss_cls\.use_sigmoid": True,
    r"model\.bbox_head\.loss_cls\.use_sigmoid": False,
    r"model\.mask_head\.loss_mask\.use_mask": True,
    r"train_cfg\.\w+\.assigner\.ignore_iof_thr": -1,
    r"train_cfg\.\w+\.(assigner|sampler)\.type": None,
    r"train_cfg\.\w+\.debug": False,
    r"train_cfg\.\w+\.pos_weight": -1,
    r"train_cfg\.rpn\.sampler\.add_gt_as_proposals": False,
    r"train_cfg\.rcnn\.sampler\.add_gt_as_proposals": True,
    r"train_cfg\.\w+\.sampler\.neg_pos_ub": -1,
    r"(train_cfg\.rpn_proposal|test_cfg\.rpn)\.nms_across_levels": False,
    r"test_cfg\.rcnn\.nms\.type": "nms",
    r"optimizer_config\.grad_clip\.norm_type": 2,
    rf"{PIPELINE}(type|keys)": None,
    rf"{PIPELINE}flip": False,
    rf"{PIPELINE}(keep_ratio|with_bbox)": True,
    r"(data\.(train|val|test)|dataset)[._]type": "CocoDataset",
    r"data_root": "data/coco/",
    r"workflow": [["train", 1]],
    r"load_from|resume_from": None,
    # evaluation after every epoch is optional; the weights are a ResNet's, of which nothing matches
    r"evaluation\.interval|model\.pretrained": None,
    r"log_config\..*|log_level|dist_params\.backend": None,
}


def merged(name):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_file(str(FOLDER / f"{name}.yaml"))
    return cfg


def plain(value):
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def of_stage(cfg, key):
    """Return the config of the key's stage, and the key of a model without stages."""
    found = re.match(r"(model\.bbox_head|train_cfg\.rcnn)\[(\d)\]", key)
    if found is None:
        return cfg, key
    assert cfg.MODEL.CASCADE_ON
    stage, plain_cfg = cascade_stages(cfg)[int(found[2])], cfg.clone()
    plain_cfg.MODEL.CLS_AGNOSTIC_BBOX_REG = stage.class_agnostic
    plain_cfg.MODEL.ROI_HEADS.FG_IOU_THRESHOLD = stage.fg_iou
    plain_cfg.MODEL.ROI_HEADS.BG_IOU_THRESHOLD = stage.bg_iou
    plain_cfg.MODEL.ROI_HEADS.BBOX_REG_WEIGHTS = stage.box_weights
    return plain_cfg, found[1] + key[found.end() :]


def lookup(table, key):
    found = [value for pattern, value in table.items() if re.fullmatch(pattern, key)]
    assert len(found) <= 1, key
    return found[0] if found else LookupError


def test_there_is_one_file_for_each_of_mmdetections():
    ours = {path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("Base")}
    assert ours == {name.removesuffix(".py") for name in RECORDED} and len(ours) == 17


@pytest.mark.parametrize("name", [name.removesuffix(".py") for name in RECORDED])
def test_every_key_is_equivalent_to_mmdetections(name):
    cfg = merged(name)
    check_values(cfg)
    for key, wanted in RECORDED[f"{name}.py"].items():
        speaker, plain_key = of_stage(cfg, key)
        meaning, always = lookup(MEANING, plain_key), lookup(ALWAYS, plain_key)
        assert (meaning is LookupError) != (always is LookupError), key
        if meaning is LookupError:
            assert always is None or wanted == always, key
            continue
        value = plain(meaning(speaker))
        if isinstance(value, str) and "{}" in value:
            value = value.format("train" if ".train." in key else "val")
        first = wanted[0] if isinstance(wanted, list) else wanted
        in_words = isinstance(first, (str, bool))
        assert value == (wanted if in_words else pytest.approx(wanted, rel=1e-12)), key


def test_proposals_are_limited_per_image_and_norms_update_only_statistics():
    cfg = merged("faster_rcnn_vovnet39_fpn_1x")
    assert not cfg.MODEL.RPN.FPN_POST_NMS_PER_BATCH
    assert cfg.MODEL.BACKBONE.NORM == "BN" and cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT == 0
    assert cfg.DATASETS.TRAIN == ("coco_2017_train",) and cfg.DATASETS.TEST == ("coco_2017_val",)
