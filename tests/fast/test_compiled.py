"""Compare detectors with a compiled dense part with the uncompiled ones."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.tiny_data import write_images
from helpers.tiny_models import tiny_cfg, tiny_model
from torch import nn

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.fast import compiled
from maskrcnn_benchmark.fast.compiled import compile_dense_part, forget_programs, is_compiled
from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.layers.norm import group_norm
from maskrcnn_benchmark.modeling.detector import build_detection_model

CONFIGS = Path(__file__).parents[2] / "configs"


class Detector(nn.Module):
    """The compiled parts of a detector."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), group_norm(32), nn.ReLU()]
        self.backbone = nn.Sequential(*layers)
        self.rpn = nn.Module()
        self.rpn.head = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        return self.rpn.head(self.backbone(x))


def test_nothing_is_compiled_before_the_first_image():
    model = for_inference(Detector())
    assert compile_dense_part(model) is model
    assert is_compiled(model.backbone) and is_compiled(model.rpn.head) and not is_compiled(model)
    assert is_compiled(copy.deepcopy(model).backbone)
    assert defaults.TEST.COMPILE is False


@pytest.fixture
def only_traced(monkeypatch):
    """Make torch.compile trace without generating code, which takes long."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    yield
    forget_programs()


# Sizes for which no map is one point high or wide: torch compiles other programs for those.
# RetinaNet's head has fewer kinds of operators than FCOS's.
@pytest.mark.parametrize("name", ["fcos", pytest.param("retinanet", marks=pytest.mark.slow), "panoptic"])
def test_detectors_can_be_traced_by_the_compiler(rng_seed, only_traced, name):
    plain = for_inference(tiny_model(tiny_cfg(name)))
    translated = compile_dense_part(for_inference(tiny_model(tiny_cfg(name))))
    translated.load_state_dict(plain.state_dict())
    for size in ((256, 384), (384, 256)):
        x = torch.randn(1, 3, *size)
        with torch.inference_mode():
            for found, expected in zip(dense_maps(translated, x), dense_maps(plain, x), strict=True):
                assert (found - expected).norm() <= 1e-4 * expected.norm()


def test_repeated_evaluation_in_training_does_not_accumulate_programs(tmp_path, only_traced, monkeypatch):
    monkeypatch.setattr(compiled, "PROGRAMS", 1)  # as many as images of these sizes need, one by one
    opts = ["DATASETS.TEST", [write_images(tmp_path)], "INPUT.MIN_SIZE_TEST", 256, "OUTPUT_DIR", str(tmp_path)]
    cfg = tiny_cfg("fcos", "TEST.COMPILE", True, "TEST.IMS_PER_BATCH", 1, *opts)
    model, loaders = tiny_model(cfg), make_test_loaders(cfg)
    first, second = (run_test(cfg, model, loaders).figures for _ in range(2))
    assert first and first == second


@pytest.mark.slow
def test_maps_are_equal_for_all_sizes(rng_seed):
    plain = for_inference(Detector())
    translated = compile_dense_part(for_inference(plain))
    for height, width in ((64, 48), (40, 56), (64, 48)):
        x = torch.randn(1, 3, height, width)
        with torch.inference_mode():
            torch.testing.assert_close(translated(x), plain(x), rtol=0, atol=1e-5)
            assert torch.equal(translated.backbone(input=x), translated.backbone(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["quick/fcos_digits", "vovnet/v2/faster_rcnn_Mv2_FPNLite_3x", "retinanet/retinanet_R-50-FPN_1x"]
)
def test_maps_of_detectors_are_equal(rng_seed, name):
    cfg = defaults.clone()
    cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", ""])
    plain = for_inference(build_detection_model(cfg))
    translated = compile_dense_part(for_inference(plain))
    for size in ((96, 128), (128, 64)):
        x = torch.randn(1, 3, *size)
        with torch.inference_mode():
            for found, expected in zip(dense_maps(translated, x), dense_maps(plain, x), strict=True):
                assert (found - expected).norm() <= 1e-4 * expected.norm()


def dense_maps(model, x):
    """Return the outputs of FPN and heads as one list."""
    features = model.backbone(x)
    maps = [*features, *(level for output in model.rpn.head(features) for level in output)]
    return [*maps, model.sem_seg_head(features)] if hasattr(model, "sem_seg_head") else maps
