"""Compare the networks of detectron2, mmdetection, timm and CenterMask with recorded keys and outputs."""

import gzip
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fill_d2
from helpers.initial_weights import zeros_instead_of_random_weights
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.backbone.vovnet import FEATURES, VARIANTS

GOLDEN = Path(__file__).parents[2] / "golden" / "d2"


def detectron2_name(key):
    return f"backbone.bottom_up.{key}"


def timm_name(key):
    key = re.sub(r"stem\.stem_(\d)/", lambda m: f"stem.{int(m[1]) - 1}.", key)
    key = re.sub(r"stage(\d)\.OSA\d_(\d+)\.", lambda m: f"stages.{int(m[1]) - 2}.blocks.{int(m[2]) - 1}.", key)
    key = re.sub(r"layers\.(\d)\.OSA\w+/", r"conv_mid.\1.", key)
    key = re.sub(r"(concat|reduction)\.OSA\w+/", r"\1.", key).replace(".concat.", ".conv_concat.")
    key = key.replace("ese.fc", "attn.fc").replace("dw_conv3x3", "conv_dw").replace("pw_conv1x1", "conv_pw")
    return key.replace("pw_norm", "bn").replace(".norm.", ".bn.")


def mmdetection_name(key):
    """Convert a key of the variants that are not depthwise: a step is convolution, norm and ReLU."""
    key = re.sub(r"/(conv|norm)\.", lambda m: f".{'conv norm'.split().index(m[1])}.", key)
    key = re.sub(r"stem\.stem_(\d)\.(\d)", lambda m: f"stem.{3 * int(m[1]) - 3 + int(m[2])}", key)
    key = re.sub(r"stage(\d)", r"OSA_\1", key)
    return "backbone.model." + re.sub(r"(layers\.\d|concat)\.OSA\w+\.", r"\1.", key)


# (file, our body, function from our keys to the original's, norm, additional keys of the file)
KEY_LISTS = [
    ("vovnet-detectron2/faster_rcnn_V_39_FPN_3x", "V2-39", detectron2_name, "FrozenBN", "(?!backbone.bottom_up)"),
    (
        "vovnet-detectron2/faster_rcnn_V_19_slim_dw_FPNLite_3x",
        "V2-19-slim-dw",
        detectron2_name,
        "FrozenBN",
        "(?!backbone.bottom_up)",
    ),
    ("vovnet-detectron2/faster_rcnn_Mv2_FPNLite_3x", "MNV2", detectron2_name, "FrozenBN", "(?!backbone.bottom_up)"),
    (
        "centermask2/centermask_lite_V_19_slim_dw_eSE_FPN_ms_4x",
        "V2-19-slim-dw",
        detectron2_name,
        "FrozenBN",
        "(?!backbone.bottom_up)",
    ),
    ("CenterMask/centermask_V_39_eSE_FPN_ms_3x", "V2-39", "backbone.body.{}".format, "FrozenBN", "(?!backbone.body)"),
    ("VoVNet-DeepLabV3/vovnet39", "V-39", str, "BN", "aspp"),
    ("timm/ese_vovnet19b_dw", "ese_vovnet19b_dw", timm_name, "BN", "head"),
    ("timm/ese_vovnet39b", "ese_vovnet39b", timm_name, "BN", "head"),
    ("mmdetection-vovnet/backbone_vovnet-39", "V2-39-mmdet", lambda key: mmdetection_name(key)[9:], "BN", "model.cl"),
    (
        "mmdetection-vovnet/cascade_mask_rcnn_vovnet19_fpn_1x",
        "V2-19-mmdet",
        mmdetection_name,
        "BN",
        r"(?!backbone)|backbone\.model\.classifier",
    ),
]


@pytest.mark.parametrize(("file", "body", "name", "norm", "rest"), KEY_LISTS, ids=[row[0] for row in KEY_LISTS])
def test_state_dict_equals_the_original(file, body, name, norm, rest):
    recorded = json.loads(gzip.decompress((GOLDEN / "state_dicts" / f"{file}.json.gz").read_bytes()))["keys"]
    with torch.device("meta"):
        state = build_backbone(body, norm=norm).state_dict()
    ours = [[name(key), list(t.shape), str(t.dtype).removeprefix("torch.")] for key, t in state.items()]
    assert sorted(ours) == sorted(entry for entry in recorded if not re.match(rest, entry[0]))


# Parameters, without those of frozen norms; multiply-adds of convolutions for 224 x 224 pixels.
SIZES = [
    ("V2-19-slim-dw", 1_379_152, 397_559_376),
    ("V2-19-slim", 2_647_984, 1_679_702_784),
    ("V2-19-dw", 5_506_944, 1_332_465_824),
    ("V2-19", 10_170_560, 4_120_913_920),
    ("V2-39", 25_163_712, 7_074_807_808),
    ("V2-57", 41_423_296, 8_934_952_960),
    ("V2-99", 69_469_376, 16_494_530_560),
    ("ese_vovnet19b_slim_dw", 1_379_152, 397_559_376),
    ("ese_vovnet19b_slim", 2_647_984, 1_679_702_784),
    ("ese_vovnet19b_dw", 5_506_944, 1_332_465_824),
    ("ese_vovnet39b", 23_523_520, 7_073_169_408),
    ("ese_vovnet57b", 37_552_320, 8_931_086_336),
    ("ese_vovnet99b", 62_120_128, 16_487_190_528),
    ("vovnet39a", 21_554_880, 7_071_203_328),
    ("vovnet57a", 35_583_680, 8_929_120_256),
    ("MNV2", 1_780_160, 279_423_872),
]


@pytest.mark.parametrize(("body", "parameters", "multiply_adds"), SIZES)
def test_parameters_and_multiply_adds_equal_the_originals(body, parameters, multiply_adds):
    counted = []

    def count(module, inputs, output):
        counted.append(output.numel() * module.weight[0].numel())

    with torch.device("meta"):
        model = build_backbone(body)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
        model(torch.rand(1, 3, 224, 224))
    assert (sum(p.numel() for p in model.parameters()), sum(counted)) == (parameters, multiply_adds)


# Totals of mmdetection's Faster R-CNNs minus their other parts; for the lightest body of its Mask R-CNN.
@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        ("V2-19-mmdet", 28_116_718 - 17_933_742),
        ("V2-39-mmdet", 43_122_222 - 17_933_742),
        ("V2-57-mmdet", 59_395_566 - 17_933_742),
        ("V2-99-mmdet", 87_469_038 - 17_933_742),
        ("V2-19-slim-dw1-mmdet", 3_577_919 - 3_220_863),
    ],
)
def test_parameters_equal_mmdetections(body, parameters):
    with torch.device("meta"):
        model = build_backbone(body, norm="BN")
    assert sum(p.numel() for p in model.parameters()) == parameters


@cache
def rgb_images():
    """Return two RGB images, 0..255, (3, 256, 384) and (3, 341, 256)."""
    arrays = np.load(GOLDEN / "inputs.npz")
    return [torch.from_numpy(arrays[f"image{i}_rgb"]).permute(2, 0, 1).float() for i in (0, 1)]


def normalized(mean, std):
    return [(image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1) for image in rgb_images()]


def batch(images, height, width):
    """Pad with zeros at the right and at the bottom."""
    padded = torch.zeros(len(images), 3, height, width)
    for row, image in zip(padded, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return padded


def detectron2_inputs():
    bgr = [image.flip(0) for image in normalized([123.675, 116.28, 103.53], [1.0, 1.0, 1.0])]
    return {"both": batch(bgr, 352, 384)}


def timm_inputs():
    images = normalized([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    crops = torch.stack([image[:, :224, :224] for image in images])
    return {"both 224x224": crops, "both 224x224, zeros to 231x237": batch(crops, 231, 237)}


def mmdetection_inputs():
    first, second = normalized([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    return {
        "image0": first[None],
        "image1": batch([second], 352, 256),
        "image1 205x251": second[None, :, :205, :251],
    }


MAPS = [
    ("V2-39", detectron2_name, detectron2_inputs),
    ("V2-19-slim-dw", detectron2_name, detectron2_inputs),
    ("ese_vovnet19b_dw", timm_name, timm_inputs),
    ("vovnet39a", timm_name, timm_inputs),
    ("V2-39-mmdet", mmdetection_name, mmdetection_inputs),
    ("V2-19-mmdet", mmdetection_name, mmdetection_inputs),
]


@pytest.mark.parametrize(("body", "name", "inputs"), MAPS, ids=[row[0] for row in MAPS])
def test_maps_equal_the_original(body, name, inputs):
    recorded = json.loads(gzip.decompress((GOLDEN / "vovnet_bodies.json.gz").read_bytes()))[body]
    with zeros_instead_of_random_weights():
        model = build_backbone(body, out_features=FEATURES).eval()
    state = {key: torch.from_numpy(fill_d2.value(name(key), t.shape)) for key, t in model.state_dict().items()}
    model.load_state_dict(state)
    inputs = inputs()
    for what, originals in recorded.items():
        with torch.inference_mode():
            maps = dict(zip(FEATURES, model(inputs[what]), strict=True))
        for feature, original in originals.items():
            ours = maps[feature]
            assert list(ours.shape) == original["shape"]
            values = ours.reshape(-1)[fill_d2.pick(ours.numel())]
            worst = (values - torch.tensor(original["values"])).abs().max().item()
            assert worst <= 1e-5 * original["absmax"], f"{what}, {feature}: {worst} off, of {original['absmax']}"
            assert ours.abs().max().item() == pytest.approx(original["absmax"], rel=1e-5)


def test_v2_19_variants_of_detectron2_and_timm_are_the_same_network():
    for size in ("slim-dw", "slim", "dw"):
        with torch.device("meta"):
            ours = build_backbone(f"V2-19-{size}").state_dict()
            timms = build_backbone(f"ese_vovnet19b_{size.replace('-', '_')}").state_dict()
        assert {key: t.shape for key, t in ours.items()} == {key: t.shape for key, t in timms.items()}


def blocks_with_ese(body):
    with torch.device("meta"):
        model = build_backbone(body)
    blocks = [(name, block) for name, block in model.named_modules() if re.fullmatch(r"stage\d\.OSA\d_\d+", name)]
    return [name.rpartition(".")[2] for name, block in blocks if block.ese is not None], len(blocks)


def test_ese_is_in_the_blocks_of_each_codebase():
    assert blocks_with_ese("V2-57")[0] == [
        "OSA2_1", "OSA3_1", "OSA4_1", "OSA4_2", "OSA4_3", "OSA4_4", "OSA5_1", "OSA5_2", "OSA5_3",
    ]  # fmt: skip
    assert blocks_with_ese("ese_vovnet57b") == (["OSA2_1", "OSA3_1", "OSA4_4", "OSA5_3"], 9)
    assert blocks_with_ese("V-57") == ([], 9)


@pytest.mark.parametrize(
    ("body", "first", "second"),
    [("V2-39", False, True), ("vovnet39a", False, False), ("V2-39-mmdet", True, True)],
)
def test_shortcut_of_blocks_with_equal_channels(body, first, second):
    """Stage 5 has equal input and output channels here."""
    cfg = defaults.clone()
    cfg.merge_from_list(
        ["MODEL.BACKBONE.CONV_BODY", f"{body}-FPN", "MODEL.VOVNET.STAGE_OUT_CHANNELS", [16, 32, 48, 48]]
    )
    with torch.device("meta"):
        stage5 = build_backbone(cfg).body.stage5
    assert (stage5.OSA5_1.identity, stage5.OSA5_2.identity) == (first, second)


@pytest.mark.parametrize("body", ["V2-19-slim-dw", "V2-19-slim-mmdet"])
def test_initial_convolutions_keep_the_scale_of_the_maps(rng_seed, body):
    model = build_backbone(body).eval()
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert biases and not any(bias.any() for bias in biases)
    weight = model.stage4.OSA4_1.concat[0].weight
    fan = weight.shape[0 if body.endswith("mmdet") else 1]
    assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)


@pytest.mark.parametrize("body", [name for name in VARIANTS if name.startswith(("V2-19-slim-dw", "ese_vovnet19b_sl"))])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN", lambda channels: nn.GroupNorm(8, channels)])
def test_small_variants_train_with_every_norm(rng_seed, body, norm):
    model = build_backbone(body, norm=norm)
    sum(m.square().mean() for m in model(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
