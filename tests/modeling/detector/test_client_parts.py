"""Test parts registered by a client, and images passed as a list."""

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.detector import build_detection_model


class ClientBody(nn.Module):
    """Return one map of stride 32. Accepts only multiples of 32."""

    def __init__(self, channels=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 32, 32)
        if channels is not None:
            self.out_channels = channels

    def forward(self, images):
        assert images.shape[2] % 32 == 0 and images.shape[3] % 32 == 0
        return [self.conv(images)]


def config(*opts):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "client-body", "MODEL.RPN_ONLY", True])
    cfg.merge_from_list(["MODEL.RPN.ANCHOR_STRIDE", [32], *opts])
    return cfg


@pytest.mark.parametrize(
    "channels, found",
    [
        (None, "has no attribute out_channels"),
        ((8,), r"has out_channels \(8,\)"),
        (0, "has out_channels 0"),
    ],
)
def test_a_backbone_without_out_channels_is_refused(channels, found, monkeypatch):
    monkeypatch.setitem(registry.BACKBONES, "client-body", lambda cfg: ClientBody(channels))
    with pytest.raises(ValueError, match=f"CONV_BODY 'client-body'.*ClientBody that {found}.*set out_channels to"):
        build_detection_model(config())


def test_an_extractor_without_out_channels_is_refused(monkeypatch):
    monkeypatch.setitem(registry.BACKBONES, "client-body", lambda cfg: ClientBody(8))
    monkeypatch.setitem(registry.ROI_BOX_FEATURE_EXTRACTORS, "client-head", lambda cfg, in_channels: nn.Flatten())
    opts = ["MODEL.RPN_ONLY", False, "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "client-head"]
    with pytest.raises(ValueError, match="ROI_BOX_HEAD.FEATURE_EXTRACTOR 'client-head'.*Flatten that has no attribute"):
        build_detection_model(config(*opts))


@pytest.mark.parametrize(
    "convention, divisibility, expected",
    [
        ("maskrcnn_benchmark", 0, 0),
        ("maskrcnn_benchmark", 32, 32),
        ("detectron2", 0, 32),
        ("detectron2", 64, 64),
        ("detectron2", 48, 96),
    ],
)
def test_size_divisibility_applies_to_lists_of_images(convention, divisibility, expected, monkeypatch):
    monkeypatch.setitem(registry.BACKBONES, "client-body", lambda cfg: ClientBody(8))
    opts = ["DATALOADER.SIZE_DIVISIBILITY", divisibility, "MODEL.CONVENTION", convention]
    model = build_detection_model(config(*opts)).eval()
    assert model.size_divisible == expected
    if expected:
        found = model([torch.rand(3, 40, 70), torch.rand(3, 64, 33)])
        assert [tuple(boxes.size) for boxes in found] == [(70, 40), (33, 64)]
