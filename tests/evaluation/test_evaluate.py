import json
import pickle

import numpy as np
import pytest
import torch
from helpers.tiny_data import write_images

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.evaluation import COCOResults, Results, VOCResults, evaluate


def _ground_truth_as_predictions(dataset, input_scale):
    predictions = []
    for index in range(len(dataset)):
        _, target, _ = dataset[index]
        width, height = target.size
        prediction = target.copy_with_fields("labels").resize((width * input_scale, height * input_scale))
        prediction.add_field("scores", torch.ones(len(target)))
        predictions.append(prediction)
    return predictions


def test_ground_truth_of_real_data_is_a_perfect_detector(shared_data, tmp_path):
    folder = shared_data("bccd")
    dataset = COCODataset(str(folder / "coco" / "instances_test.json"), str(folder / "JPEGImages"), False)
    # twice the size, like a network input, and exact in float32
    results, detections = evaluate(dataset, _ground_truth_as_predictions(dataset, 2), str(tmp_path), box_only=False)
    assert isinstance(results, COCOResults)
    assert results.results["bbox"]["AP"] == pytest.approx(1)
    annotations = json.loads((folder / "coco" / "instances_test.json").read_text())["annotations"]
    wanted = sorted((a["image_id"], a["category_id"], [float(v) for v in a["bbox"]]) for a in annotations)
    assert sorted((d["image_id"], d["category_id"], d["bbox"]) for d in detections["bbox"]) == wanted


def test_import_paths_of_the_forks():
    from maskrcnn_benchmark.data.datasets import evaluation as old
    from maskrcnn_benchmark.data.datasets.evaluation.coco import coco_eval, coco_evaluation

    assert old.evaluate is evaluate and callable(coco_evaluation)
    assert coco_eval.COCOResults is COCOResults


def test_unsupported_dataset_is_named():
    with pytest.raises(NotImplementedError, match="Unsupported dataset type dict.*COCODataset"):
        evaluate({}, [], None)


def test_every_evaluation_returns_results_and_compares_them_once(tmp_path, caplog):
    folder = write_images(tmp_path)
    dataset = COCODataset(folder["ANNOTATIONS"], folder["IMAGES"], False)
    perfect = _ground_truth_as_predictions(dataset, 2)
    with caplog.at_level("INFO"):
        results = evaluate(dataset, perfect, None, expected_results=[["bbox", "AP", [0.5, 0.01]]])
    assert isinstance(results, Results) and not results.as_expected
    assert sum("sanity check" in record.getMessage() for record in caplog.records) == 1
    assert evaluate(dataset, perfect, None).as_expected
    figures, detections = results  # as in the forks' programs
    assert figures is results and detections is results.detections and len(detections["bbox"]) > 0
    assert results[0].results["bbox"]["AP"] == pytest.approx(1)
    restored = pickle.loads(pickle.dumps(results))
    assert (restored.results, restored.detections) == (results.results, {})


def test_voc_results_are_also_the_forks_dict():
    results = VOCResults(np.array([np.nan, 1.0]), np.array([np.nan, 0.5]))
    assert isinstance(results, Results)
    assert (results["map"], results.results) == (1.0, {"voc": {"mAP": 1.0, "mAP_area": 0.5}})
