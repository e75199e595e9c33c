"""Test dilation instead of strides: the same weights on a finer grid."""

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.backbone.body import dilated_strides

BODIES = ["V-27", "V2-19-slim-dw", "V2-19-slim-mmdet", "ese_vovnet19b_slim_dw", "R-50", "MNV2", "D-121"]


@pytest.mark.parametrize(
    ("stride", "expected"),
    [
        (32, [(4, 1), (1, 1), (2, 1), (2, 1), (2, 1)]),
        (16, [(4, 1), (1, 1), (2, 1), (2, 1), (1, 2)]),
        (8, [(4, 1), (1, 1), (2, 1), (1, 2), (1, 4)]),
        (4, [(4, 1), (1, 1), (1, 2), (1, 4), (1, 8)]),
    ],
)
def test_strides_beyond_become_dilation(stride, expected):
    assert dilated_strides((4, 1, 2, 2, 2), stride) == expected


def test_other_output_strides_are_refused():
    with pytest.raises(ValueError, match="12.*MODEL.BACKBONE.OUTPUT_STRIDE"):
        build_backbone("V-27", output_stride=12)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_dilated_maps_have_the_stride_and_unchanged_keys(name, stride):
    with torch.device("meta"):
        plain, body = (build_backbone(name, norm="BN", output_stride=s) for s in (32, stride))
        maps = body(torch.empty(1, 3, 128, 192))
    strides = tuple(min(s, stride) for s in (4, 8, 16, 32))
    assert body.out_strides == strides
    assert [tuple(m.shape[2:]) for m in maps] == [(128 // s, 192 // s) for s in strides]
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (plain, body)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", BODIES)
def test_dilation_keeps_the_receptive_field(name):
    """At output stride 16 an impulse reaches as many input points as at 32, except for the pooling."""
    dilations = {}
    for stride in (32, 16, 8):
        body = build_backbone(name, norm="BN", output_stride=stride)
        dilations[stride] = [m.dilation[0] for m in body.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
    assert set(dilations[32]) == {1} and set(dilations[16]) == {1, 2} and set(dilations[8]) == {1, 2, 4}
    # Dilation only grows towards the end.
    assert all(list(each) == sorted(each) for each in dilations.values())


@pytest.mark.parametrize(
    ("name", "options"), [("R-50", {"stride_in_1x1": True}), ("R-50", {"stride_in_1x1": False}), ("MNV2", {})]
)
def test_every_second_point_equals_the_strided_body(name, options, rng_seed):
    """Where a convolution has a stride, the dilated body computes the same at every second point (DeepLab)."""
    plain, dilated = (build_backbone(name, norm="BN", output_stride=stride, **options).eval() for stride in (32, 16))
    dilated.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = plain(image)[-1], dilated(image)[-1]
    torch.testing.assert_close(found[:, :, ::2, ::2], expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_res5_dilation_and_output_stride_together_are_refused():
    with pytest.raises(ValueError, match="RES5_DILATION"):
        build_backbone("R-50", res5_dilation=2, output_stride=16)


def test_config_sets_stride_and_norm():
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "V-27", "MODEL.BACKBONE.OUTPUT_STRIDE", 8])
    cfg.merge_from_list(["MODEL.BACKBONE.NORM", "BN", "MODEL.BACKBONE.NORM_EPS", 2e-3])
    cfg.merge_from_list(["MODEL.BACKBONE.NORM_MOMENTUM", 0.02])
    with torch.device("meta"):
        body = build_backbone(cfg).body
    assert body.out_strides == (4, 8, 8, 8)
    assert {(m.eps, m.momentum) for m in body.modules() if isinstance(m, nn.BatchNorm2d)} == {(2e-3, 0.02)}
    cfg.merge_from_list(["MODEL.BACKBONE.NORM", "FrozenBN", "MODEL.BACKBONE.CONV_BODY", "V-27-FPN"])
    with pytest.raises(ValueError, match="OUTPUT_STRIDE"):
        build_backbone(cfg)
