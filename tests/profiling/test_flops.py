"""Multiply-adds: computed by hand, compared with detectron2's networks, and of layers that torch cannot count."""

import json

import pytest
import torch
from conftest import GOLDEN, ROOT
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.fast.winograd_conv import WinogradConv2d, winograd_chain
from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.native import library
from maskrcnn_benchmark.profiling.flops import count_multiply_adds

COUNTED = json.loads((GOLDEN / "d2_multiply_adds.json").read_text())["detectors"]


def test_operations_count_for_all_parent_modules():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=True), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 20, 7))
    counts = count_multiply_adds(model, lambda: model(torch.rand(2, 3, 4, 5)))
    convolution, linear = 2 * 8 * 4 * 5 * 3 * 9, 2 * 7 * 160
    assert counts == {"": convolution + linear, "0": convolution, "1": 0, "2": 0, "3": linear}


def test_grouped_and_transposed_convolutions():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ConvTranspose2d(8, 6, 2, stride=2))
    counts = count_multiply_adds(model, lambda: model(torch.rand(1, 4, 6, 6)))
    assert counts["0"] == 8 * 16 * 9
    assert counts["1"] == 8 * 16 * 6 * 4


def test_deformable_convolution_counts_as_a_plain_convolution():
    model = DFConv2d(6, 4)
    counts = count_multiply_adds(model, lambda: model(torch.rand(1, 6, 5, 7)))
    assert counts["conv"] == 4 * 6 * 9 * 35
    assert counts["offset"] == 27 * 6 * 9 * 35


@pytest.mark.skipif(not library.kernels_for(torch.device("cpu")), reason="no compiled ops")
def test_winograd_convolutions_count_as_direct_convolutions():
    convs = [nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 48, 3, padding=1)]
    x = torch.rand(2, 16, 5, 7)
    fast = [WinogradConv2d(conv) for conv in convs]
    counts = count_multiply_adds(fast[0], lambda: fast[0](x))
    assert counts[""] == 2 * 35 * 16 * 32 * 9
    counts = count_multiply_adds(fast[0], lambda: winograd_chain(x, fast))
    assert counts[""] == 2 * 35 * (16 * 32 + 32 * 48) * 9


@pytest.mark.parametrize("name", COUNTED)
def test_counts_equal_those_of_detectron2(name):
    cfg = defaults.clone()
    cfg.merge_from_file(str(ROOT / "configs" / "vovnet" / "v2" / f"{name}.yaml"))
    with torch.device("meta"):
        model = build_detection_model(cfg).eval()
        images = torch.empty(1, 3, 800, 1344)
    counts = count_multiply_adds(model.backbone, lambda: model.backbone(images))
    maps = model.backbone(images)
    wanted = COUNTED[name]
    assert counts["body"] == wanted["bottom_up"]
    assert counts["fpn"] == wanted["fpn"]
    assert count_multiply_adds(model.rpn.head, lambda: model.rpn.head(maps))[""] == wanted["rpn_head"]
    if wanted["sem_seg_head"]:
        head = model.sem_seg_head
        assert count_multiply_adds(head, lambda: head(maps))[""] == wanted["sem_seg_head"]
