import logging
import math
import re

import pytest
import torch
from helpers import distributed_cases, processes
from helpers.tiny_models import tiny_cfg
from helpers.toy_training import ToyDataset, ToyLoader

from maskrcnn_benchmark.engine import inference as engine_inference
from maskrcnn_benchmark.engine.inference import compute_on_dataset, gather_predictions, inference
from maskrcnn_benchmark.evaluation import load_predictions
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.utils.timer import Timer


class Finder(torch.nn.Module):
    """Detect one box, whose coordinates are the mean of the image."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 1)
        self.seen = set()

    def forward(self, images, targets=None):
        assert not self.training
        self.seen |= {torch.is_inference_mode_enabled(), self.layer(images.tensors).dtype}
        found = []
        for image, (height, width) in zip(images.tensors, images.image_sizes, strict=True):
            boxes = BoxList(image.float().mean().repeat(1, 4), (width, height))
            boxes.add_field("scores", torch.ones(1))
            boxes.add_field("labels", torch.ones(1, dtype=torch.int64))
            found.append(boxes)
        return found


@pytest.fixture
def evaluated(monkeypatch):
    """Replace evaluate() by a function that returns "figures"; the fixture is the list of its keyword arguments."""
    calls = []

    def evaluate(**kwargs):
        calls.append(kwargs)
        return "figures"

    monkeypatch.setattr(engine_inference, "evaluate", evaluate)
    return calls


def test_predictions_are_keyed_by_dataset_index_and_mutable(rng_seed):
    model, loader, timer = Finder(), ToyLoader(3), Timer()
    model.train()
    predictions = compute_on_dataset(model, loader, "cpu", timer)
    assert sorted(predictions) == list(range(6))
    for index, boxes in predictions.items():
        expected = loader.dataset[index][0].mean()
        torch.testing.assert_close(boxes.bbox, expected.repeat(1, 4))
        boxes.bbox += 1  # raises for tensors of inference mode
        assert boxes.fields() == ["scores", "labels"]
    assert model.seen == {True, torch.float32}
    assert timer.calls == 3


def test_mixed_precision_is_used_in_testing():
    model = Finder()
    compute_on_dataset(model, ToyLoader(1), "cpu", dtype=torch.bfloat16)
    assert torch.bfloat16 in model.seen


def test_inference_logs_the_forks_lines_writes_predictions_and_evaluates(tmp_path, caplog, evaluated):
    caplog.set_level(logging.INFO, "maskrcnn_benchmark.inference")
    loader = ToyLoader(2)
    result = inference(
        Finder(), loader, "toy", ("bbox",), False, "cpu", [["bbox", "AP", [0.5, 0.1]]], 3, output_folder=str(tmp_path)
    )
    assert result == "figures"
    lines = [record.message for record in caplog.records]
    assert lines[0] == "Start evaluation on toy dataset(4 images)."
    form = r"{}: \d:\d\d:\d\d(\.\d+)? \(\d\S* s / img per device, on 1 devices\)"
    assert re.fullmatch(form.format("Total run time"), lines[1])
    assert re.fullmatch(form.format("Model inference time"), lines[2])
    (call,) = evaluated
    assert len(call["predictions"]) == 4
    assert call["dataset"] is loader.dataset
    assert (call["box_only"], call["iou_types"]) == (False, ("bbox",))
    assert (call["expected_results"], call["expected_results_sigma_tol"]) == ([["bbox", "AP", [0.5, 0.1]]], 3)
    saved = load_predictions(tmp_path / "predictions.pth")
    for one, other in zip(saved, call["predictions"], strict=True):
        assert torch.equal(one.bbox, other.bbox)


def test_image_without_prediction_is_none(caplog):
    boxes = BoxList(torch.ones(1, 4), (8, 8))
    predictions = gather_predictions({0: boxes, 2: boxes}, 3)
    assert predictions == [boxes, None, boxes]
    assert "not a contiguous set" in caplog.text


def test_empty_dataset_does_not_divide_by_zero(evaluated):
    loader = ToyLoader(0)
    loader.dataset = ToyDataset(0)
    assert inference(Finder(), loader, "toy", device="cpu") == "figures"
    assert evaluated[0]["predictions"] == []


def test_two_processes_gather_all_predictions_on_rank_0():
    first, second = processes.run(2, distributed_cases.predict_toy, {5})
    assert second is None
    assert [boxes is None for boxes in first] == [False] * 5 + [True] + [False] * 2


def test_process_without_objects_does_not_block_the_others():
    (losses, have_gradients, weight), (_, _, other_weight) = processes.run(
        2, distributed_cases.train_where_one_process_has_no_object, tiny_cfg("fcos")
    )
    assert all(math.isfinite(value) for step in losses for value in step.values())
    assert all(have_gradients)
    assert torch.equal(weight, other_weight)


def test_model_with_output_sizes_gets_the_sizes_of_the_original_images(rng_seed):
    class Painter(Finder):
        takes_output_sizes = True

        def forward(self, images, targets=None, output_sizes=None):
            sizes.append(output_sizes)
            return super().forward(images, targets)

    sizes, loader = [], ToyLoader(3)
    loader.dataset.get_img_info = lambda index: {"width": 10 + index, "height": 20}
    compute_on_dataset(Painter(), loader, "cpu")
    assert [size for batch in sizes for size in batch] == [(10 + index, 20) for index in range(6)]
