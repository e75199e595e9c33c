"""Load checkpoints of other codebases, given by their key lists: no missing keys, no unused keys, equal shapes."""

import gzip
import json

import pytest
import torch
from helpers.golden_models import GOLDEN, build_on_meta

from maskrcnn_benchmark.checkpoint.body_check import check_body
from maskrcnn_benchmark.checkpoint.matching import match_state_dicts
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.backbone.vovnet import VARIANTS

FASTER, MASK, FCOS = "e2e_faster_rcnn_R_50_FPN_1x", "e2e_mask_rcnn_R_50_FPN_1x", "fcos/fcos_R_50_FPN_1x"
LITE = ["MODEL.VOVNET.BACKBONE_OUT_CHANNELS", 128]
CASCADE = ["MODEL.CASCADE_ON", True]

# list: (config, CONV_BODY, further options)
DETECTORS = {
    "detectron2/faster_rcnn_R_50_FPN_3x": (FASTER, "R-50-FPN", []),
    "vovnet-detectron2/faster_rcnn_Mv2_FPNLite_3x": (FASTER, "MNV2-FPNLite", ["MODEL.BACKBONE.NORM", "FrozenBN"]),
    "vovnet-detectron2/faster_rcnn_V_19_slim_dw_FPNLite_3x": (FASTER, "V2-19-slim-dw-FPNLite", []),
    "vovnet-detectron2/faster_rcnn_V_39_FPN_3x": (FASTER, "V2-39-FPN", []),
    "vovnet-detectron2/mask_rcnn_V_39_FPN_3x": (MASK, "V2-39-FPN", []),
    "mmdetection-vovnet/faster_rcnn_vovnet39_fpn_1x": (FASTER, "V2-39-mmdet-FPN", ["MODEL.BACKBONE.NORM", "BN"]),
    "mmdetection-vovnet/cascade_mask_rcnn_vovnet19_fpn_1x": (
        *(MASK, "V2-19-mmdet-FPN"),
        [*CASCADE, "MODEL.BACKBONE.NORM", "BN"],
    ),
    "mmdetection-vovnet/cascade_mask_rcnn_vovnet39_fpn_1x": (
        *(MASK, "V2-39-mmdet-FPN"),
        [*CASCADE, "MODEL.BACKBONE.NORM", "BN"],
    ),
}
# A plain FCOS takes what it has in common with them: body, FPN and FCOS head.
CENTERMASKS = {
    "CenterMask/centermask_V_39_eSE_FPN_ms_3x": (FCOS, "V2-39-FPN-RETINANET", []),
    "centermask2/centermask_V_39_eSE_FPN_ms_3x": (FCOS, "V2-39-FPN-RETINANET", []),
    "centermask2/centermask_lite_V_19_slim_dw_eSE_FPN_ms_4x": (
        *(FCOS, "V2-19-slim-dw-FPN-RETINANET"),
        [*LITE, "MODEL.FCOS.NUM_CONVS", 2],
    ),
}
# Our models have their body.
BODIES = {
    "mmdetection-vovnet/backbone_vovnet-39": (FASTER, "V2-39-mmdet-FPN", []),
    "timm/ese_vovnet19b_dw": (FASTER, "ese_vovnet19b_dw-FPN", []),
    "timm/ese_vovnet39b": (FASTER, "ese_vovnet39b-FPN", []),
    "VoVNet-DeepLabV3/vovnet39": (FASTER, "V-39-FPN", []),
    "VoVNet-DeepLabV3/resnet50": (FASTER, "R-50-FPN", []),
}


def state_of(entries):
    return {key: torch.empty(tuple(shape), device="meta") for key, shape in entries}


def load(model, file_state):
    report = match_state_dicts(model.state_dict(), file_state)
    check_body(report)
    assert not report.mismatched
    return report


def model_and_list(name, config, body, opts):
    path = GOLDEN / "d2" / "state_dicts" / f"{name}.json.gz"
    keys = [entry[:2] for entry in json.loads(gzip.decompress(path.read_bytes()))["keys"]]
    return build_on_meta(f"{config}.yaml", ["MODEL.BACKBONE.CONV_BODY", body, *opts]), state_of(keys)


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_checkpoints_load_completely(name):
    model, file_state = model_and_list(name, *DETECTORS[name])
    report = load(model, file_state)
    assert report.missing == [] and report.unused == []
    assert all("anchor_generator" in key for key in report.from_config)
    assert all(".classifier." in key for key in report.without_use)
    assert sorted(report.matched.values()) == sorted(file_state.keys() - set(report.without_use))


@pytest.mark.parametrize("name", CENTERMASKS)
def test_centermask_checkpoints_load_the_box_parts(name):
    report = load(*model_and_list(name, *CENTERMASKS[name]))
    assert report.missing == [] and all(key.startswith("roi_heads.mask") for key in report.unused)


@pytest.mark.parametrize("name", CENTERMASKS)
def test_centermask_checkpoints_load_completely(name):
    folder = {"CenterMask": "v1", "centermask2": "v2"}[name.split("/")[0]]
    config = f"vovnet/centermask/{folder}/{name.split('/')[1]}"
    report = load(*model_and_list(name, config, CENTERMASKS[name][1], []))
    assert report.missing == [] and report.unused == []
    assert report.convention == {"v1": None, "v2": "centermask2"}[folder]


def test_deformable_layers_have_centermask2s_names_and_load():
    options = ["MODEL.VOVNET.STAGE_WITH_DCN", (False, True, True, True), "MODEL.VOVNET.WITH_MODULATED_DCN", True]
    model = build_on_meta("vovnet/centermask/v2/centermask_V_39_eSE_FPN_ms_3x.yaml", options)
    theirs, left_out = convert_state_dict(model.state_dict(), "centermask2")
    layer = "backbone.bottom_up.stage3.OSA3_1.layers.0.OSA3_1_0"
    assert not left_out and theirs[f"{layer}/conv_offset.weight"].shape[0] == 27
    assert f"{layer}/conv.weight" in theirs and f"{layer}/conv_offset.bias" in theirs
    assert not any("/conv.conv." in key or "/conv.offset." in key for key in theirs)
    report = load(model, theirs)
    assert report.missing == [] and report.unused == []


@pytest.mark.parametrize("name", BODIES)
def test_body_checkpoints_load_completely(name):
    report = load(*model_and_list(name, *BODIES[name]))
    assert not any(key.startswith("backbone.body.") for key in report.missing)
    assert all(key.startswith("aspp.") for key in report.unused)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_vovnet_converts_to_other_dialects_and_back(variant):
    body = {f"backbone.body.{key}": value for key, value in body_on_meta(variant).state_dict().items()}
    for to in ("detectron2", "mmdetection", "timm"):
        theirs, left_out = convert_state_dict(body, to)
        assert not left_out and not theirs.keys() & body.keys()
        names = [name.removeprefix("backbone.body.") for name in to_ours(theirs).tensors]
        assert names == [key.removeprefix("backbone.body.") for key in body]


def body_on_meta(name):
    with torch.device("meta"):
        return build_backbone(name, norm="BN")


@pytest.mark.parametrize("name", ["V2-19-slim-dw", "V2-39", "V-57", "ese_vovnet39b", "V2-57-mmdet"])
def test_another_network_with_the_same_key_names_is_refused(name):
    model = build_on_meta(f"{FASTER}.yaml", ["MODEL.BACKBONE.CONV_BODY", "V2-57-FPN"])
    other = body_on_meta(name).state_dict()
    with pytest.raises(ValueError, match="CONV_BODY"):
        load(model, convert_state_dict(other, "detectron2")[0])


@pytest.mark.parametrize(
    ("name", "config", "options"),
    [
        ("fasterrcnn_resnet50_fpn", FASTER, {"num_classes": 81}),
        ("maskrcnn_resnet50_fpn", MASK, {"num_classes": 81}),
        ("resnet50", FASTER, {}),
        ("mobilenet_v2", FASTER, {}),
    ],
)
def test_torchvision_models_load_completely(name, config, options):
    torchvision = pytest.importorskip("torchvision")
    family = torchvision.models.detection if "rcnn" in name else torchvision.models
    weights = {"weights_backbone": None} if "rcnn" in name else {}
    with torch.device("meta"):
        theirs = getattr(family, name)(weights=None, **weights, **options).state_dict()
    body = "MNV2-FPN" if name == "mobilenet_v2" else "R-50-FPN"
    report = load(build_on_meta(f"{config}.yaml", ["MODEL.BACKBONE.CONV_BODY", body]), theirs)
    assert report.unused == []
    if "rcnn" in name:
        assert report.missing == [] and all(key.endswith("num_batches_tracked") for key in report.without_use)
        return
    assert not any(key.startswith("backbone.body.") for key in report.missing)
    ours, _ = convert_state_dict(theirs, "maskrcnn_benchmark")
    assert list(convert_state_dict(ours, "torchvision")[0]) == list(theirs)
