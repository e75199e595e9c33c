"""Detectors whose dense part torch.compile has translated find what they found before."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.layers.norm import group_norm
from maskrcnn_benchmark.modeling.compiled import compile_dense_part, is_compiled
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.for_inference import for_inference

CONFIGS = Path(__file__).parents[2] / "configs"


class Detector(nn.Module):
    """As much of one as is translated."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), group_norm(32), nn.ReLU()]
        self.backbone = nn.Sequential(*layers)
        self.rpn = nn.Module()
        self.rpn.head = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        return self.rpn.head(self.backbone(x))


def test_nothing_is_translated_before_the_first_picture():
    model = for_inference(Detector())
    assert compile_dense_part(model) is model
    assert is_compiled(model.backbone) and is_compiled(model.rpn.head) and not is_compiled(model)
    assert is_compiled(copy.deepcopy(model).backbone)
    assert defaults.TEST.COMPILE is False


@pytest.mark.slow
def test_maps_are_equal_for_all_sizes(rng_seed):
    plain = for_inference(Detector())
    compiled = compile_dense_part(for_inference(plain))
    for height, width in ((64, 48), (40, 56), (64, 48)):
        x = torch.randn(1, 3, height, width)
        with torch.inference_mode():
            torch.testing.assert_close(compiled(x), plain(x), rtol=0, atol=1e-5)
            assert torch.equal(compiled.backbone(input=x), compiled.backbone(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["quick/fcos_digits", "vovnet/v2/faster_rcnn_Mv2_FPNLite_3x", "retinanet/retinanet_R-50-FPN_1x"]
)
def test_maps_of_detectors_are_equal(rng_seed, name):
    cfg = defaults.clone()
    cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", ""])
    plain = for_inference(build_detection_model(cfg))
    compiled = compile_dense_part(for_inference(plain))
    for size in ((96, 128), (128, 64)):
        x = torch.randn(1, 3, *size)
        with torch.inference_mode():
            for found, wanted in zip(dense_maps(compiled, x), dense_maps(plain, x), strict=True):
                assert (found - wanted).norm() <= 1e-4 * wanted.norm()


def dense_maps(model, x):
    """What FPN and head return, as one list."""
    features = model.backbone(x)
    return [*features, *(level for output in model.rpn.head(features) for level in output)]
