"""Measure tiny models of every kind."""

import json

import pytest
import torch
from helpers.tiny_models import tiny_cfg

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.profiling import measure as measuring
from maskrcnn_benchmark.profiling import random_weights
from maskrcnn_benchmark.profiling.energy import EnergyReadError
from maskrcnn_benchmark.profiling.measure import count_parameters, measure
from maskrcnn_benchmark.profiling.report import as_json, as_text
from maskrcnn_benchmark.profiling.stages import STAGES
from maskrcnn_benchmark.profiling.subjects import subject_of

SMALL = ("INPUT.MIN_SIZE_TEST", 64, "INPUT.MIN_SIZE_TRAIN", (64,), "TEST.DETECTIONS_PER_IMG", 5)


def subject(kind, *opts, **kwargs):
    arguments = {"weights": "", "num_images": 2, "size": (96, 72)} | kwargs
    return subject_of(kind, tiny_cfg(kind, *SMALL, *opts), **arguments)


@pytest.mark.parametrize("kind", ["fcos", "retinanet", "rpn", "mask and keypoint", "panoptic", "cascade mask"])
def test_models_of_every_kind(kind, rng_seed):
    with subject(kind) as tiny:
        (measured,) = measure([tiny], repeats=2, warm_up=1)
    assert measured.name == kind
    assert 0 < measured.detections <= 25  # detections with the score of the fifth; there are more proposals
    assert all(measured.stage_ms[stage].median > 0 for stage in STAGES)
    assert 0 < measured.detect_ms.low <= measured.detect_ms.median <= measured.detect_ms.high
    parts = measured.multiply_adds
    assert min(parts.values()) > 0
    assert parts["backbone"] + parts["FPN"] + parts["heads"] == parts["total"]
    assert measured.operations_per_second == pytest.approx(2 * parts["total"] * 1e3 / measured.detect_ms.median)
    assert measured.train_ms is None


def test_number_of_detections_is_that_of_the_config(rng_seed):
    with subject("faster") as tiny:
        assert tiny.detect(0) == 5


@pytest.mark.parametrize("pasted_by_the_model", [True, False])
def test_masks_of_a_square_image_are_pasted_once(monkeypatch, rng_seed, pasted_by_the_model):
    pastings = []
    monkeypatch.setattr(measuring, "paste_rles", lambda *args, **kwargs: pastings.append(args))
    with subject("mask", "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS", pasted_by_the_model, size=(64, 64)) as tiny:
        pastings.clear()
        tiny.detect(0)
    assert len(pastings) == (0 if pasted_by_the_model else 1)


def test_energy_counter_that_fails_later_is_reported(monkeypatch, rng_seed):
    readings = [1.0]

    def joule():
        if not readings:
            raise EnergyReadError("the counter is gone")
        return readings.pop()

    monkeypatch.setattr(measuring, "energy_meter", lambda device: (joule, "counter"))
    monkeypatch.setattr(measuring, "ENERGY_SECONDS", 0.01)
    with subject("fcos") as tiny:
        (measured,) = measure([tiny], repeats=1, warm_up=0)
    assert measured.joule_per_image is None and measured.energy_source == "the counter is gone"


def test_training_step_of_masks_and_keypoints(rng_seed):
    with subject("mask and keypoint") as tiny:
        (measured,) = measure([tiny], repeats=1, warm_up=0, train_images=2)
    assert measured.train_ms.median > 0


def test_report_as_text_and_json(rng_seed):
    with subject("fcos") as fcos, subject("faster", "DTYPE", "bfloat16") as faster:
        measured = measure([fcos, faster], repeats=1, warm_up=0)
    settings = {"repeats": 1}
    lines = as_text(measured, settings).splitlines()
    assert lines[3].split() == ["fcos", "faster"]
    table = {line.split("  ")[0]: line.split()[-2:] for line in lines[4:-2]}
    assert table["weights"] == ["random", "random"]
    assert table["parameters, M"] == [f"{each.parameters / 1e6:.1f}" for each in measured]
    assert "bfloat16 on cpu" in lines[4]
    content = json.loads(json.dumps(as_json(measured, settings)))
    assert [config["name"] for config in content["configs"]] == ["fcos", "faster"]
    assert content["configs"][0]["detect_ms"]["median"] == measured[0].detect_ms.median
    assert content["machine"]["torch"] == torch.__version__


def test_loaded_weights_keep_the_thresholds_of_the_config(tmp_path, rng_seed):
    torch.save({"model": build_detection_model(tiny_cfg("fcos")).state_dict()}, tmp_path / "w.pth")
    with subject("fcos", "MODEL.FCOS.INFERENCE_TH", 0.9, weights=str(tmp_path / "w.pth")) as tiny:
        assert tiny.model.rpn.post_process.score_thresh == 0.9
        assert tiny.detect(0) == 0


def test_own_data_without_a_dataset_is_an_error():
    with pytest.raises(ValueError, match="DATASETS.TEST is empty"), subject("fcos", own_data=True):
        pass


def test_frozen_norms_do_not_change_the_parameter_count(rng_seed):
    models = []
    for norm in ("FrozenBN", "BN"):
        cfg = tiny_cfg("faster", "MODEL.BACKBONE.NORM", norm)
        models.append(build_detection_model(cfg))
    assert count_parameters(models[0]) == count_parameters(models[1])


def test_statistics_keep_the_activations_of_a_deep_body_bounded(rng_seed):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "R-101-FPN", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 64])
    model = build_detection_model(cfg).eval()
    images = torch.rand(1, 3, 64, 64) * 255
    random_weights.set_statistics(model.backbone.body, lambda: model.backbone(images))
    deepest = model.backbone.body(images)[-1]
    assert 0.1 < deepest.std() < 100
