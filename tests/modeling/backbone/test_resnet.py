import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d, GroupNorm
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.backbone.resnet import ResNet, make_stage


def config(*opts):
    cfg = defaults.clone()
    cfg.merge_from_list(list(opts))
    return cfg


def build_on_meta(*opts):
    with torch.device("meta"):
        return build_backbone(config(*opts))


@torch.no_grad()
def test_block_does_not_modify_its_input(rng_seed):
    block = for_inference(make_stage(64, 16, 64, 2, FrozenBatchNorm2d, stride=1))[1]
    x = torch.randn(1, 64, 12, 9).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("R-50-C4", (1, 1024, 14, 16)),
        ("R-50-C5", (1, 2048, 7, 8)),
        ("R-101-C4", (1, 1024, 14, 16)),
        ("R-152-C5", (1, 2048, 7, 8)),
    ],
)
def test_c4_and_c5_return_their_map_and_set_out_channels(name, shape):
    backbone = build_on_meta("MODEL.BACKBONE.CONV_BODY", name)
    (out,) = backbone(torch.rand(1, 3, 224, 256, device="meta"))
    assert tuple(out.shape) == shape
    assert backbone.out_channels == shape[1]
    assert hasattr(backbone.body, "layer4") == name.endswith("C5")


@pytest.mark.parametrize(("name", "blocks"), [("R-50-FPN", 16), ("R-101-FPN", 33), ("R-152-FPN", 50)])
def test_depth_comes_from_conv_body(name, blocks):
    body = build_on_meta("MODEL.BACKBONE.CONV_BODY", name).body
    assert sum(key.endswith("conv3.weight") for key in body.state_dict()) == blocks


@pytest.mark.parametrize(("in_1x1", "strides"), [(True, (2, 1)), (False, (1, 2))])
def test_stride_in_1x1_moves_the_stride(in_1x1, strides):
    body = build_on_meta("MODEL.RESNETS.STRIDE_IN_1X1", in_1x1).body
    block = body.layer2[0]
    assert (block.conv1.stride[0], block.conv2.stride[0]) == strides


def test_resnext_groups_and_widths():
    body = build_on_meta("MODEL.RESNETS.NUM_GROUPS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 8).body
    assert tuple(body.layer3[0].conv2.weight.shape) == (1024, 32, 3, 3)


def test_widths_by_config():
    body = build_on_meta("MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "MODEL.RESNETS.RES2_OUT_CHANNELS", 128).body
    assert body.stem.conv1.out_channels == 32
    assert body.out_channels == (512,)


def test_dilated_layer4_keeps_stride_16():
    backbone = build_on_meta("MODEL.BACKBONE.CONV_BODY", "R-50-C5", "MODEL.RESNETS.RES5_DILATION", 2)
    (out,) = backbone(torch.rand(1, 3, 64, 96, device="meta"))
    assert tuple(out.shape[2:]) == (4, 6)
    assert backbone.body.out_strides == (16,)


def test_fpn_refuses_a_dilated_body():
    with pytest.raises(ValueError, match=r"strides \(4, 8, 16, 32\)"):
        build_on_meta("MODEL.BACKBONE.CONV_BODY", "R-50-FPN", "MODEL.RESNETS.RES5_DILATION", 2)


@pytest.mark.parametrize(("modulated", "groups", "channels"), [(False, 1, 18), (True, 1, 27), (True, 2, 54)])
def test_deformable_layers_by_config(modulated, groups, channels):
    body = build_on_meta(
        *("MODEL.BACKBONE.CONV_BODY", "R-50-FPN", "MODEL.RESNETS.STAGE_WITH_DCN", (False, True, False, True)),
        *("MODEL.RESNETS.WITH_MODULATED_DCN", modulated, "MODEL.RESNETS.DEFORMABLE_GROUPS", groups),
    ).body
    offsets = {key: value for key, value in body.state_dict().items() if key.endswith("conv2.offset.weight")}
    assert [key.split(".")[0] for key in offsets] == ["layer2"] * 4 + ["layer4"] * 3
    assert tuple(offsets["layer2.0.conv2.offset.weight"].shape) == (channels, 128, 3, 3)
    assert tuple(body.layer4[0].conv2.conv.weight.shape) == (512, 512, 3, 3)
    assert isinstance(body.layer3[0].conv2, nn.Conv2d)


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_deformable_layers_keep_the_maps_sizes_and_train(stride_in_1x1, rng_seed):
    options = {"stem_channels": 8, "res2_channels": 16, "width_per_group": 4, "stride_in_1x1": stride_in_1x1}
    body = ResNet((1, 1, 1, 2), deformable_layers=(2, 4), modulated=True, res5_dilation=2, freeze_at=2, **options)
    maps = body(torch.randn(2, 3, 70, 90))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 18, 23), (32, 9, 12), (64, 5, 6), (128, 5, 6)]
    sum(m.sum() for m in maps).backward()
    learning = {name for name, p in body.named_parameters() if p.requires_grad}
    assert {"layer2.0.conv2.offset.weight", "layer4.1.conv2.conv.weight"} <= learning
    assert all(p.grad.isfinite().all() for p in body.parameters() if p.requires_grad)


def test_fresh_deformable_block_has_the_forks_distributions(rng_seed):
    body = ResNet((1,), (1,), deformable_layers=(1,), modulated=True)
    conv2 = body.layer1[0].conv2
    assert conv2.offset.weight.abs().max().item() == pytest.approx((3 / (64 * 9)) ** 0.5, rel=0.02)
    assert conv2.conv.weight.abs().max().item() == pytest.approx((1 / (64 * 9)) ** 0.5, rel=0.02)
    assert not conv2.offset.bias.any()


def test_unknown_block_is_refused():
    with pytest.raises(ValueError, match="TRANS_FUNC is 'Bottleneck'; expected one of BottleneckWithFixedBatchNorm"):
        build_on_meta("MODEL.RESNETS.TRANS_FUNC", "Bottleneck")


@pytest.mark.parametrize(
    ("opts", "stem", "blocks"),
    [
        ((), FrozenBatchNorm2d, FrozenBatchNorm2d),
        (("MODEL.RESNETS.TRANS_FUNC", "BottleneckWithGN"), FrozenBatchNorm2d, GroupNorm),
        (("MODEL.RESNETS.STEM_FUNC", "StemWithGN"), GroupNorm, FrozenBatchNorm2d),
        (("MODEL.BACKBONE.NORM", "BN"), nn.BatchNorm2d, nn.BatchNorm2d),
    ],
)
def test_norms_by_config(opts, stem, blocks):
    body = build_on_meta(*opts).body
    assert type(body.stem.bn1) is stem
    assert {type(m) for name, m in body.named_modules() if "layer" in name and "bn" in name} == {blocks}


@pytest.mark.parametrize(("freeze_at", "frozen"), [(-1, 0), (0, 0), (1, 1), (2, 11), (5, 53)])
def test_frozen_weights_of_r50(freeze_at, frozen):
    body = build_on_meta("MODEL.BACKBONE.CONV_BODY", "R-50-FPN", "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", freeze_at).body
    assert sum(not p.requires_grad for p in body.parameters()) == frozen


def test_frozen_layers_keep_their_batch_statistics(rng_seed):
    body = ResNet((1, 1), (2,), stem_channels=8, res2_channels=16, width_per_group=4, norm=nn.BatchNorm2d, freeze_at=1)
    body.train()
    body(torch.randn(2, 3, 32, 32))
    assert not body.stem.bn1.running_mean.any()
    assert body.layer1[0].bn1.running_mean.any()


def test_a_stage_alone_is_a_res5_head():
    head = nn.Module()
    head.layer4 = make_stage(64, 32, 128, 3, FrozenBatchNorm2d, stride=2)
    assert head.layer4(torch.rand(5, 64, 14, 14)).shape == (5, 128, 7, 7)
    assert next(iter(head.state_dict())) == "layer4.0.downsample.0.weight"
    dilated = make_stage(64, 32, 128, 3, FrozenBatchNorm2d, stride=2, dilation=2)
    assert dilated(torch.rand(5, 64, 14, 14)).shape == (5, 128, 14, 14)
