import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.backbone import build_backbone
from maskrcnn_benchmark.modeling.backbone.mobilenet import MobileNetV2


def test_out_channels_and_out_strides_match_the_maps():
    with torch.device("meta"):
        body = MobileNetV2()
        maps = body(torch.rand(1, 3, 64, 96))
    assert tuple(m.shape[1] for m in maps) == body.out_channels == (24, 32, 96, 320)
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // s, 96 // s) for s in body.out_strides]


@pytest.mark.parametrize("use_c5", [True, False])
def test_p6_is_always_computed_from_p5(use_c5):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "MNV2-FPN-RETINANET", "MODEL.RETINANET.USE_C5", use_c5])
    cfg.merge_from_list(["MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 32])
    backbone = build_backbone(cfg)
    assert backbone.fpn.top_blocks.use_P5 and backbone.fpn.top_blocks.p6.in_channels == 32


@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, 0), (1, 3), (2, 9), (3, 18)])
def test_freezing_counts_blocks(freeze_at, frozen):
    with torch.device("meta"):
        body = MobileNetV2(freeze_at=freeze_at)
    assert sum(not p.requires_grad for p in body.parameters()) == frozen


def test_frozen_blocks_keep_their_batch_statistics(rng_seed):
    body = MobileNetV2(freeze_at=1).train()
    body(torch.randn(2, 3, 32, 32))
    assert not body.features[0][1].running_mean.any()
    assert body.features[1].conv[1].running_mean.any()


def test_other_norms():
    with torch.device("meta"):
        body = MobileNetV2(FrozenBatchNorm2d)
    assert len(list(body.parameters())) == 51  # a weight per convolution
