"""Test all backbones."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fill
from helpers.initial_weights import zeros_instead_of_random_weights
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.image_list import to_image_list

GOLDEN = Path(__file__).parents[2] / "golden"
KEY_LISTS = sorted((GOLDEN / "state_dicts").glob("*.json.gz"))
FPN_SETTINGS = ["MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 256]


def config(overrides):
    cfg = defaults.clone()
    for key, value in overrides.items():
        cfg.merge_from_list([key, tuple(value) if isinstance(value, list) else value])
    return cfg


@pytest.mark.parametrize("path", KEY_LISTS, ids=lambda path: path.name[: -len(".json.gz")])
def test_state_dict_equals_the_original(path):
    recorded = json.loads(gzip.decompress(path.read_bytes()))
    cfg = defaults.clone()
    cfg.merge_from_file(str(GOLDEN.parents[1] / recorded["config"]))
    with torch.device("meta"):
        backbone = build_backbone(cfg)
    ours = [
        [f"backbone.{key}", list(value.shape), str(value.dtype).removeprefix("torch.")]
        for key, value in backbone.state_dict().items()
    ]
    assert ours == [entry for entry in recorded["state_dict"] if entry[0].startswith("backbone.")]
    frozen = [f"backbone.{key}" for key, p in backbone.named_parameters() if not p.requires_grad]
    assert sorted(frozen) == sorted(recorded["requires_grad_false"])


# (file, overrides where the file has none)
GOLDENS = {
    "fcos_V_39": {
        "MODEL.BACKBONE.CONV_BODY": "V-39-FPN-RETINANET",
        "MODEL.RETINANET.USE_C5": False,
    },
    "fcos_R_50": {
        "MODEL.BACKBONE.CONV_BODY": "R-50-FPN-RETINANET",
        "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 256,
        "MODEL.RETINANET.USE_C5": False,
    },
    "fcos_MNV2_syncbn_c128": {
        "MODEL.BACKBONE.CONV_BODY": "MNV2-FPN-RETINANET",
        "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 128,
    },
    "backbone_faster_R_50_C4": {},
    "backbone_retinanet_R_50_FPN": {},
    "backbone_scratch_mask_V_39_gn": {},
}


def golden_images(golden):
    images = np.load(GOLDEN / "inputs.npz")
    mean = torch.tensor([102.9801, 115.9465, 122.7717]).view(3, 1, 1)
    tensors = [
        torch.from_numpy(images[key][:, :, ::-1].copy()).permute(2, 0, 1).float() - mean for key in ("image0", "image1")
    ]
    return to_image_list(tensors, golden["size_divisibility"]).tensors


def assert_like(ours, recorded, what):
    assert list(ours.shape) == recorded["shape"], what
    samples = ours.reshape(-1)[fill.sample_indices(ours.numel())]
    worst = (samples - torch.tensor(recorded["samples"])).abs().max().item()
    # Between 1 and 2 threads the originals themselves differ by 1e-6 to 1e-5 of the largest value.
    assert worst <= 1e-4 * recorded["absmax"], f"{what}: {worst} off, largest value {recorded['absmax']}"
    assert ours.abs().max().item() == pytest.approx(recorded["absmax"], rel=1e-4), what


@pytest.mark.parametrize("name", GOLDENS)
def test_maps_equal_the_original(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    with zeros_instead_of_random_weights():
        backbone = build_backbone(config(GOLDENS[name] or golden["overrides"])).eval()
    # The weights are generated from their names in the whole model.
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    filled = fill.fill(state, golden["gains"], golden["bias_offsets"])
    state = {key.removeprefix("backbone."): torch.from_numpy(value) for key, value in filled.items()}
    backbone.load_state_dict(state, strict=False)
    recorded = golden["test"][0]
    images = golden_images(golden)
    with torch.inference_mode():
        assert_like(images, recorded["batched_input"], "input")
        body = backbone.body(images)
        features = backbone.fpn(body) if hasattr(backbone, "fpn") else body
    assert len(body) == len(recorded["backbone_body"]) and len(features) == len(recorded["features"])
    for kind, maps in (("backbone_body", body), ("features", features)):
        for level, ours in enumerate(maps):
            assert_like(ours, recorded[kind][level], f"{kind} {level}")


# As in upstream's test of backbones, these names get their config, and all others the unchanged defaults. V-XX and
# MobileNetV2 then have no matching CONV_BODY, and the depth is that of the defaults' R-50-C4.
UPSTREAM_CONFIGS = {
    "R-50-FPN": ["MODEL.BACKBONE.CONV_BODY", "R-50-FPN", *FPN_SETTINGS],
    "R-101-FPN": ["MODEL.BACKBONE.CONV_BODY", "R-101-FPN", *FPN_SETTINGS],
    "R-152-FPN": ["MODEL.BACKBONE.CONV_BODY", "R-101-FPN", *FPN_SETTINGS],
    "R-50-FPN-RETINANET": ["MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET", *FPN_SETTINGS],
    "R-101-FPN-RETINANET": ["MODEL.BACKBONE.CONV_BODY", "R-101-FPN-RETINANET", *FPN_SETTINGS],
}


@pytest.mark.parametrize("name", sorted(registry.BACKBONES))
def test_every_entry_builds_from_the_defaults_and_sets_out_channels(name):
    cfg = defaults.clone()
    cfg.merge_from_list(UPSTREAM_CONFIGS.get(name, []))
    # Only shapes are tested, on the meta device; the goldens test values. A body runs where it is alone.
    with torch.device("meta"):
        backbone = registry.BACKBONES[name](cfg)
        if "FPN" in name:
            body = backbone.body
            shapes = zip(body.out_channels, body.out_strides, strict=True)
            maps = backbone.fpn([torch.rand(2, channels, 224 // stride, 256 // stride) for channels, stride in shapes])
        else:
            maps = backbone(torch.rand(2, 3, 224, 256))
    sizes = [tuple(m.shape[2:]) for m in maps]
    if name in registry.BODIES:  # alone, with all of its maps
        assert [m.shape[1] for m in maps] == list(backbone.body.out_channels)
        assert backbone.out_channels == backbone.body.out_channels[-1]
        assert sizes == [(56, 64), (28, 32), (14, 16), (7, 8)]
        return
    assert [tuple(m.shape[:2]) for m in maps] == [(2, backbone.out_channels)] * len(maps)
    if "FPN" not in name:
        assert sizes == [(14, 16)] and backbone.out_channels == 1024
    elif "RETINANET" in name:
        assert sizes == [(28, 32), (14, 16), (7, 8), (4, 4), (2, 2)]
    elif "P2P7" in name:
        assert sizes == [(56, 64), (28, 32), (14, 16), (7, 8), (4, 4), (2, 2)]
    else:
        assert sizes == [(56, 64), (28, 32), (14, 16), (7, 8), (4, 4)]


def test_builder_uses_its_own_variant_for_an_unknown_body():
    with torch.device("meta"):
        backbone = registry.BACKBONES["V-57-FPN"](config({"MODEL.BACKBONE.CONV_BODY": "R-50-C4"}))
        assert len([name for name, _ in backbone.body.stage4.named_children()]) == 1 + 4
        backbone = registry.BACKBONES["R-101-C5"](config({"MODEL.BACKBONE.CONV_BODY": "V-39-FPN"}))
        assert len(backbone.body.layer3) == 23 and hasattr(backbone.body, "layer4")


def test_unknown_backbone_error_suggests_similar_names():
    with pytest.raises(KeyError, match="'V-39-FNP' is not registered; did you mean V-39-FPN"):
        build_backbone(config({"MODEL.BACKBONE.CONV_BODY": "V-39-FNP"}))


# (name, maps of strides 4 to 32, number of norms up to the third map)
BODIES = [
    ("V-27", ("stage2", "stage3", "stage4", "stage5"), 21),
    ("V2-19-slim-dw", ("stage2", "stage3", "stage4", "stage5"), 17),
    ("MNV2", ("res2", "res3", "res4", "res5"), 39),
    ("R-50", ("res2", "res3", "res4", "res5"), 43),
]


@pytest.mark.parametrize(("name", "features", "norms"), BODIES)
def test_body_alone_returns_the_requested_maps(name, features, norms):
    with torch.device("meta"):
        x = torch.rand(2, 3, 64, 96)
        body = build_backbone(name)
        assert body.out_features == features and body.out_strides == (4, 8, 16, 32)
        assert [tuple(m.shape[1:]) for m in body(x)] == [
            (c, 64 // s, 96 // s) for c, s in zip(body.out_channels, body.out_strides, strict=True)
        ]
        part = build_backbone(name, out_features=features[1:3], norm="BN", freeze_at=1)
        assert [tuple(m.shape[1:]) for m in part(x)] == [
            (c, 64 // s, 96 // s) for c, s in zip(part.out_channels, part.out_strides, strict=True)
        ]
    assert part.out_features == features[1:3] and part.out_strides == (8, 16)
    # Layers after the last map do not exist, so none is trained for nothing.
    assert sum(isinstance(module, nn.BatchNorm2d) for module in part.modules()) == norms
    assert not next(part.parameters()).requires_grad and next(reversed(list(part.parameters()))).requires_grad


def test_example_in_the_docstring():
    with torch.device("meta"):
        body = build_backbone("V2-99", out_features=("stage3", "stage4", "stage5"), norm="BN")
        maps = body(torch.rand(1, 3, 320, 800))
    assert (body.out_channels, body.out_strides) == ((512, 768, 1024), (8, 16, 32))
    assert [tuple(m.shape) for m in maps] == [(1, 512, 40, 100), (1, 768, 20, 50), (1, 1024, 10, 25)]


def test_vovnet_stem_can_be_requested():
    with torch.device("meta"):
        for name, stride in (("V2-39", 4), ("V2-39-mmdet", 2)):
            body = build_backbone(name, out_features=["stem"])
            assert (body.out_channels, body.out_strides) == ((128,), (stride,))
            assert [tuple(m.shape) for m in body(torch.rand(1, 3, 64, 64))] == [(1, 128, 64 // stride, 64 // stride)]


@pytest.mark.parametrize("name", ["V2-19", "MNV2", "R-50"])
@pytest.mark.parametrize("features", [(), ("res6",), ("stage3", "stage2"), ("res4", "res4")])
def test_unknown_map_names_are_refused(name, features):
    with pytest.raises(ValueError, match="out_features is .* expected at least one of"):
        build_backbone(name, out_features=features)


def test_a_string_instead_of_a_list_of_maps_is_refused():
    with pytest.raises(ValueError) as raised:
        build_backbone("V2-19", out_features="stage4")
    assert str(raised.value) == (
        "out_features is the string 'stage4'; expected a list of map names: write ('stage4',)."
    )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["V2-19-slim-dw", "V2-19-slim-mmdet"])
def test_a_body_is_traced_with_gradients_on(rng_seed, name):
    body = build_backbone(name).eval()
    traced = torch.jit.trace(body, torch.rand(1, 3, 64, 64))
    images = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(traced(images), body(images))


def test_norm_of_a_body_alone():
    with torch.device("meta"):
        frozen, forks = build_backbone("V2-19-dw"), build_backbone("V2-19-dw", norm_eps=0.0)
        own = build_backbone("V2-19-dw", norm=lambda channels: nn.BatchNorm2d(channels, eps=0.1))
    assert frozen.stem[1].eps == 1e-5 and forks.stem[1].eps == 0 and own.stem[1].eps == 0.1
    with pytest.raises(ValueError, match="there is no norm 'LN'"):
        build_backbone("V2-19-dw", norm="LN")
    with pytest.raises(KeyError, match="'V2-98' is not registered; did you mean .*V2-9"):
        build_backbone("V2-98")


@pytest.mark.parametrize("body", ["V2-19-slim-dw", "MNV2", "V2-39-mmdet"])
def test_fpn_lite_narrows_the_heads(body):
    cfg = config(
        {"MODEL.BACKBONE.CONV_BODY": f"{body}-FPNLite", "MODEL.MASK_ON": True, "MODEL.RPN.USE_FPN": True}
        | {"MODEL.RPN.ANCHOR_STRIDE": [4, 8, 16, 32, 64], "MODEL.ROI_HEADS.USE_FPN": True}
        | {"MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPN2MLPFeatureExtractor"}
        | {"MODEL.ROI_BOX_HEAD.PREDICTOR": "FPNPredictor", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7}
        | {"MODEL.ROI_BOX_HEAD.POOLER_SCALES": [0.25, 0.125, 0.0625, 0.03125]}
        | {"MODEL.ROI_MASK_HEAD.POOLER_SCALES": [0.25, 0.125, 0.0625, 0.03125]}
        | {"MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR": "MaskRCNNFPNFeatureExtractor"}
        | {"MODEL.ROI_MASK_HEAD.PREDICTOR": "MaskRCNNC4Predictor"}
        | {"MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": False}
    )
    with torch.device("meta"):
        state = build_detection_model(cfg).state_dict()
    assert {tuple(t.shape[:2]) for key, t in state.items() if re.search(r"fpn_layer\d.weight", key)} == {(128, 128)}
    shapes = {key: tuple(t.shape) for key, t in state.items()}
    assert shapes["rpn.head.conv.weight"] == (128, 128, 3, 3)
    assert shapes["roi_heads.box.feature_extractor.fc6.weight"] == (1024, 128 * 7 * 7)
    assert shapes["roi_heads.mask.feature_extractor.mask_fcn1.weight"] == (256, 128, 3, 3)


SMALL_BODIES = {
    "vovnet": {
        "MODEL.BACKBONE.CONV_BODY": "V-27-FPN-RETINANET",
        "MODEL.VOVNET.STEM_CHANNELS": [8, 8, 16],
        "MODEL.VOVNET.STAGE_CONV_CHANNELS": [8, 8, 16, 16],
        "MODEL.VOVNET.STAGE_OUT_CHANNELS": [16, 32, 48, 64],
        "MODEL.VOVNET.LAYERS_PER_BLOCK": 2,
        "MODEL.VOVNET.BACKBONE_OUT_CHANNELS": 32,
    },
    "vovnet v2": {
        "MODEL.BACKBONE.CONV_BODY": "V2-39-FPN",
        "MODEL.VOVNET.STEM_CHANNELS": [8, 8, 16],
        "MODEL.VOVNET.STAGE_CONV_CHANNELS": [8, 8, 16, 16],
        "MODEL.VOVNET.STAGE_OUT_CHANNELS": [16, 32, 48, 64],
        "MODEL.VOVNET.LAYERS_PER_BLOCK": 2,
        "MODEL.VOVNET.BACKBONE_OUT_CHANNELS": 32,
    },
    "vovnet v2, depthwise, of mmdetection": {
        "MODEL.BACKBONE.CONV_BODY": "V2-19-slim-dw-mmdet-FPN",
        "MODEL.VOVNET.STEM_CHANNELS": [8, 8, 16],
        "MODEL.VOVNET.STAGE_CONV_CHANNELS": [8, 8, 16, 16],
        "MODEL.VOVNET.STAGE_OUT_CHANNELS": [16, 32, 48, 64],
        "MODEL.VOVNET.LAYERS_PER_BLOCK": 2,
        "MODEL.VOVNET.BACKBONE_OUT_CHANNELS": 32,
    },
    "resnet": {
        "MODEL.BACKBONE.CONV_BODY": "R-50-FPN",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
        "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 32,
    },
    "mobilenet, detectron2's form": {
        "MODEL.BACKBONE.CONV_BODY": "MNV2-FPN",
        "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 32,
        "MODEL.BACKBONE.NORM": "FrozenBN",
    },
    "mobilenet": {"MODEL.BACKBONE.CONV_BODY": "MNV2-FPN-RETINANET", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 32},
}


def small_backbone(name, **more):
    return build_backbone(config({**SMALL_BODIES[name], "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": 0, **more}))


@pytest.mark.parametrize("name", SMALL_BODIES)
@pytest.mark.parametrize("size", [(97, 131), (1, 40), (32, 33)])
def test_any_image_size_runs(name, size):
    backbone = small_backbone(name).eval()
    maps = backbone(torch.rand(2, 3, *size))
    assert len(maps) == 5 and all(m.shape[:2] == (2, 32) and min(m.shape[2:]) >= 1 for m in maps)


@pytest.mark.parametrize("name", SMALL_BODIES)
def test_every_parameter_gets_a_gradient(rng_seed, name):
    backbone = small_backbone(name)
    sum(m.sum() for m in backbone(torch.rand(2, 3, 64, 64))).backward()
    assert [key for key, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", SMALL_BODIES)
def test_channels_last_gives_the_same_maps(rng_seed, name):
    backbone = small_backbone(name).eval()
    x = torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        plain = backbone(x)
        backbone = backbone.to(memory_format=torch.channels_last)
        last = backbone(x.to(memory_format=torch.channels_last))
    for a, b in zip(plain, last, strict=True):
        assert b.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * a.abs().max().item())


@pytest.mark.parametrize("name", SMALL_BODIES)
def test_autocast_trains_in_bfloat16(rng_seed, name):
    backbone = small_backbone(name)
    x = torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = backbone(x)
    assert {m.dtype for m in maps} == {torch.bfloat16}
    sum(m.float().sum() for m in maps).backward()
    assert all(torch.isfinite(p.grad).all() for p in backbone.parameters())


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN", "GN"])
@pytest.mark.parametrize("name", SMALL_BODIES)
def test_every_body_takes_every_norm(norm, name):
    groups = {"MODEL.GROUP_NORM.NUM_GROUPS": 4}
    backbone = small_backbone(name, **groups, **{"MODEL.BACKBONE.NORM": norm})
    assert all(torch.isfinite(m).all() for m in backbone(torch.rand(2, 3, 64, 64)))
