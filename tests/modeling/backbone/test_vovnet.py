import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d, GroupNorm
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.backbone.vovnet import ESE, VARIANTS, CeilMaxPool, OSASpec, VoVNet

SMALL = OSASpec((8, 8, 8, 8), (16, 24, 32, 40), (1, 1, 2, 1), layers=2, stem=(4, 4, 8))


def config(*opts):
    cfg = defaults.clone()
    cfg.merge_from_list(list(opts))
    return cfg


# Totals of published models minus their heads: FCOS (towers and predictions of 256 channels) has 4,920,666 parameters,
# RPN with the 2-layer box head 14,904,740.
@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        ("V-27-FPN-RETINANET", 11_172_890 - 4_920_666),
        ("V-39-FPN-RETINANET", 30_016_538 - 4_920_666),
        ("V-57-FPN-RETINANET", 44_045_338 - 4_920_666),
        ("V-93-FPN-RETINANET", 64_631_834 - 4_920_666),
        ("V-27-FPN", 20_599_908 - 14_904_740),
        ("V-39-FPN", 39_476_324 - 14_904_740),
        ("V-57-FPN", 53_505_124 - 14_904_740),
        ("V-69-FPN", 61_467_748 - 14_904_740),
        ("V-75-FPN", 63_798_372 - 14_904_740),
        ("V-93-FPN", 74_091_620 - 14_904_740),
    ],
)
def test_parameters_equal_the_originals(body, parameters):
    with torch.device("meta"):
        backbone = build_backbone(config("MODEL.BACKBONE.CONV_BODY", body, "MODEL.RETINANET.USE_C5", False))
    assert sum(p.numel() for p in backbone.parameters()) == parameters


def test_out_channels_and_out_strides_match_the_maps(rng_seed):
    body = VoVNet(SMALL)
    maps = body(torch.randn(2, 3, 64, 96))
    assert tuple(m.shape[1] for m in maps) == body.out_channels == (16, 24, 32, 40)
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // s, 96 // s) for s in body.out_strides]


def test_map_sizes_of_an_image_that_is_not_a_multiple_of_32():
    with torch.device("meta"):
        maps = VoVNet(VARIANTS["V-39"])(torch.rand(1, 3, 100, 100))
    assert [m.shape[-1] for m in maps] == [25, 12, 6, 3]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 200), (31, 33)])
def test_tiny_images_pass(size):
    maps = VoVNet(SMALL)(torch.rand(1, 3, *size))
    assert all(min(m.shape[2:]) >= 1 for m in maps)


def test_pooling_equals_ceil_mode_for_larger_maps(rng_seed):
    for size in ((2, 2), (7, 12), (24, 25)):
        x = torch.randn(1, 2, *size)
        assert torch.equal(CeilMaxPool()(x), nn.MaxPool2d(3, 2, ceil_mode=True)(x))
    x = torch.randn(1, 2, 1, 8)
    assert torch.equal(CeilMaxPool()(x), nn.MaxPool2d((1, 3), (1, 2), ceil_mode=True)(x))


@pytest.mark.parametrize("hard_gate", [True, False])
def test_ese_multiplies_by_a_gate_of_the_means(rng_seed, hard_gate):
    ese = ESE(6, hard_gate)
    x = torch.randn(2, 6, 5, 7).contiguous(memory_format=torch.channels_last) * 9
    means = torch.einsum("oc,nchw->no", ese.fc.weight[:, :, 0, 0], x) / 35 + ese.fc.bias
    gate = ((means + 3).clamp(0, 6) / 6 if hard_gate else 1 / (1 + (-means).exp()))[:, :, None, None]
    before = x.clone()
    out = ese(x)
    torch.testing.assert_close(out, before * gate)
    assert torch.equal(x, before) and out.is_contiguous(memory_format=torch.channels_last)


def test_only_later_blocks_of_a_stage_add_their_input():
    body = VoVNet(SMALL)
    assert [block.identity for name, block in body.stage4.named_children() if name != "Pooling"] == [False, True]


def test_config_sets_widths_and_depths():
    cfg = config(
        "MODEL.BACKBONE.CONV_BODY", "V-27-FPN-RETINANET",
        "MODEL.VOVNET.STEM_CHANNELS", [8, 8, 16],
        "MODEL.VOVNET.STAGE_CONV_CHANNELS", [8, 8, 16, 16],
        "MODEL.VOVNET.STAGE_OUT_CHANNELS", [16, 32, 48, 64],
        "MODEL.VOVNET.BLOCKS_PER_STAGE", [1, 1, 1, 2],
        "MODEL.VOVNET.LAYERS_PER_BLOCK", 3,
        "MODEL.VOVNET.BACKBONE_OUT_CHANNELS", 24,
    )  # fmt: skip
    backbone = build_backbone(cfg)
    assert backbone.body.out_channels == (16, 32, 48, 64)
    assert backbone.body.stem[0].out_channels == 8
    assert len(backbone.body.stage5.OSA5_2.layers) == 3
    assert [m.shape[1] for m in backbone(torch.rand(1, 3, 64, 64))] == [24] * 5


def test_wrong_number_of_widths_is_refused():
    with pytest.raises(ValueError, match=r"STAGE_OUT_CHANNELS is \[16, 32\]; expected 4"):
        build_backbone(config("MODEL.BACKBONE.CONV_BODY", "V-39-FPN", "MODEL.VOVNET.STAGE_OUT_CHANNELS", [16, 32]))


@pytest.mark.parametrize("out_channels", [128, 256])
def test_out_channels_key_has_no_effect(out_channels):
    cfg = config("MODEL.BACKBONE.CONV_BODY", "V-27-FPN", "MODEL.VOVNET.OUT_CHANNELS", out_channels)
    with torch.device("meta"):
        backbone = build_backbone(cfg)
        maps = backbone(torch.rand(1, 3, 64, 64))
    assert backbone.body.out_channels == (128, 256, 384, 512)
    assert [m.shape[1] for m in maps] == [256] * 5


@pytest.mark.parametrize(
    ("opts", "kind"),
    [
        ((), FrozenBatchNorm2d),
        (("MODEL.VOVNET.USE_GN", True), GroupNorm),
        (("MODEL.BACKBONE.NORM", "BN", "MODEL.VOVNET.USE_GN", True), nn.BatchNorm2d),
        (("MODEL.BACKBONE.NORM", "SyncBN"), nn.BatchNorm2d),
        (("MODEL.BACKBONE.NORM", "GN"), GroupNorm),
    ],
)
def test_norm_by_config(opts, kind):
    with torch.device("meta"):
        body = build_backbone(config("MODEL.BACKBONE.CONV_BODY", "V-39-FPN", *opts)).body
    norms = [module for name, module in body.named_modules() if name.endswith("/norm")]
    assert len(norms) == 39 and {type(norm) for norm in norms} == {kind}


@pytest.mark.parametrize(("freeze_at", "frozen"), [(-1, 0), (0, 0), (1, 3), (2, 9), (3, 15), (5, 39)])
def test_frozen_weights_of_v39(freeze_at, frozen):
    with torch.device("meta"):
        body = VoVNet(VARIANTS["V-39"], freeze_at=freeze_at)
    assert sum(not p.requires_grad for p in body.parameters()) == frozen


def test_frozen_stages_keep_their_batch_statistics(rng_seed):
    body = VoVNet(SMALL, nn.BatchNorm2d, freeze_at=2)
    for _ in range(2):  # as built, and after evaluation
        before = {name: value.clone() for name, value in body.state_dict().items() if "running" in name}
        body(torch.randn(2, 3, 64, 64))
        moved = {
            name.split(".")[0] for name, value in before.items() if not torch.equal(body.state_dict()[name], value)
        }
        assert moved == {"stage3", "stage4", "stage5"}
        body.eval()
        body.train()


# ---- deformable stages


def deformable(**options):
    return VoVNet(VARIANTS["V2-19-slim"], deformable_stages=("stage3", "stage5"), **options)


def test_deformable_layers_are_in_the_chosen_stages_and_keep_their_names():
    names = {name for name, module in deformable().named_modules() if isinstance(module, DFConv2d)}
    assert names == {f"stage{s}.OSA{s}_1.layers.{i}.OSA{s}_1_{i}/conv" for s in (3, 5) for i in range(3)}


def test_without_he_initialization_offsets_start_at_zero_and_a_layer_as_an_ordinary_convolution(rng_seed):
    body = deformable(he_init=False)
    layer = body.stage3.OSA3_1.layers[0][0]
    assert not layer.offset.weight.any() and not layer.offset.bias.any()
    x = torch.randn(1, layer.conv.weight.shape[1], 9, 7)
    # the mask of a modulated layer starts at a half
    expected = torch.nn.functional.conv2d(x, layer.conv.weight, padding=1) / 2
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)
    assert deformable().stage3.OSA3_1.layers[0][0].offset.weight.any()


def test_depthwise_convolutions_cannot_be_deformable():
    with pytest.raises(ValueError, match="depthwise and cannot be deformable.*STAGE_WITH_DCN"):
        VoVNet(VARIANTS["V2-19-slim-dw"], deformable_stages=("stage3",))
