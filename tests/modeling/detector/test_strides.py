"""Strides of anchors, locations and poolers against the backbone's maps, before the first step."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.detector.strides import check_strides, strides_of_maps

ROOT = Path(__file__).resolve().parents[3]
# one of each family: backbones take a while to build
CONFIGS = [
    ROOT / "configs" / name
    for name in (
        "e2e_mask_rcnn_R_50_C4_1x.yaml",
        "e2e_keypoint_rcnn_R_50_FPN_1x.yaml",
        "rpn_R_50_FPN_1x.yaml",
        "retinanet/retinanet_R-50-FPN_P5_1x.yaml",
        "fcos/fcos_R_50_FPN_1x.yaml",
        "cascade/e2e_cascade_mask_rcnn_V_39_FPN_2x.yaml",
        "quick/fcos_bccd.yaml",
    )
]


def config(body, *opts):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", body, *opts])
    return cfg


@pytest.mark.parametrize(
    "body, strides",
    [
        ("R-50-C4", (16,)),
        ("R-50-C5", (32,)),
        ("R-50-FPN", (4, 8, 16, 32, 64)),
        ("V2-19-slim-dw-FPNLite", (4, 8, 16, 32, 64)),
        ("V2-19-mmdet-FPN", (4, 8, 16, 32, 64)),
        ("MNV2-FPN-RETINANET", (8, 16, 32, 64, 128)),
        ("V-27-FPN-RETINANET", (8, 16, 32, 64, 128)),
    ],
)
def test_strides_are_those_of_the_maps(body, strides):
    with torch.device("meta"):
        backbone = build_backbone(config(body))
        maps = backbone(torch.zeros(1, 3, 256, 256))
    assert strides_of_maps(backbone) == strides == tuple(256 // m.shape[-1] for m in maps)


def test_other_backbones_are_not_checked():
    assert strides_of_maps(nn.Sequential(nn.Conv2d(3, 8, 3))) is None


FCOS = ("MODEL.FCOS_ON", True, "MODEL.RPN_ONLY", True)
RPN = ("MODEL.RPN.USE_FPN", True, "MODEL.RPN_ONLY", True)


@pytest.mark.parametrize(
    "body, opts, message",
    [
        (
            "R-50-FPN",
            [*FCOS],
            r"FPN_STRIDES is \[8, 16, 32, 64, 128\], but the maps of .*'R-50-FPN'.*\[4, 8, 16, 32, 64\]",
        ),
        ("R-50-C4", ["MODEL.RETINANET_ON", True], r"MODEL.RETINANET.ANCHOR_STRIDES is .*Set it to \[16\]"),
        ("R-50-FPN", [], r"MODEL.RPN.ANCHOR_STRIDE is \[16\].*USE_FPN takes one stride per map"),
        ("R-50-FPN", [*RPN, "MODEL.RPN.ANCHOR_STRIDE", [2, 4, 8, 16, 32]], r"ANCHOR_STRIDE is \[2, 4, 8, 16, 32\]"),
        ("R-50-C4", ["MODEL.ROI_BOX_HEAD.POOLER_SCALES", [0.25]], r"ROI_BOX_HEAD.POOLER_SCALES is \[0.25\].*0.0625"),
        ("R-50-C4", ["MODEL.ROI_BOX_HEAD.POOLER_SCALES", [1 / 16, 1 / 32]], "ROI_BOX_HEAD.POOLER_SCALES is"),
    ],
)
def test_strides_that_are_not_the_maps_are_refused(body, opts, message):
    cfg = config(body, *opts)
    with torch.device("meta"):
        model = build_detection_model(cfg)
    with pytest.raises(ValueError, match=message):
        check_strides(cfg, model)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_have_the_strides_of_their_backbones(path):
    cfg = defaults.clone()
    cfg.merge_from_file(path)
    with torch.device("meta"):
        backbone = build_backbone(cfg)
    check_strides(cfg, SimpleNamespace(backbone=backbone, rpn=None))
