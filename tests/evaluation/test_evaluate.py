import json

import pytest
import torch

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.evaluation import COCOResults, evaluate


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
    # twice the size: as a network input would be, and exact in float32
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


def test_unsupported_data_set_is_named():
    with pytest.raises(NotImplementedError, match="Unsupported dataset type dict.*COCODataset"):
        evaluate({}, [], None)
