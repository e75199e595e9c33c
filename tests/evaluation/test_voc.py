from __future__ import annotations

import json
import logging
import math

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data.datasets import PascalVOCDataset
from maskrcnn_benchmark.evaluation import evaluate
from maskrcnn_benchmark.evaluation.coco_results import check_expected_results
from maskrcnn_benchmark.evaluation.voc import (
    _in_original_size,
    average_precision,
    match_image,
    precision_recall,
    voc_evaluation,
)
from maskrcnn_benchmark.structures.bounding_box import BoxList


class Images:
    """Dataset with only the methods that VOC evaluation requires; images have 100 x 80 pixels."""

    class_names = ["ant", "bee", "cat"]

    def __init__(self, truths):
        self.truths = truths

    def __len__(self):
        return len(self.truths)

    def image_id(self, index):
        return f"{index:06d}"

    def get_img_info(self, index):
        return {"width": 100, "height": 80}

    def get_groundtruth(self, index):
        boxes = BoxList([box for box, _, _ in self.truths[index]], (100, 80))
        boxes.add_field("labels", torch.tensor([label for _, label, _ in self.truths[index]], dtype=torch.int64))
        boxes.add_field("difficult", torch.tensor([hard for _, _, hard in self.truths[index]], dtype=torch.uint8))
        return boxes


BOX, OTHER, FAR = (10, 10, 29, 29), (50, 10, 69, 29), (70, 60, 90, 79)


def test_the_first_detection_on_an_object_is_true_and_the_next_false(boxlist):
    truth = Images([[(BOX, 1, 0), (OTHER, 1, 1), (FAR, 2, 0)]]).get_groundtruth(0)
    found = boxlist(
        (100, 80),
        [(BOX, 1, 0.5), (BOX, 1, 0.9), (OTHER, 1, 0.8), (OTHER, 1, 0.7), (FAR, 1, 0.6), (FAR, 2, 0.1), (BOX, 2, 0.3)],
    )
    outcome = {(label, round(score, 1)): result for label, score, result in match_image(found, truth)}
    assert outcome == {(1, 0.9): 1, (1, 0.8): -1, (1, 0.7): -1, (1, 0.6): 0, (1, 0.5): 0, (2, 0.3): 0, (2, 0.1): 1}


def test_boxes_overlap_in_inclusive_pixels(boxlist):
    truth = Images([[((0, 0, 9, 9), 1, 0)]]).get_groundtruth(0)
    half = boxlist((100, 80), [((0, 0, 4, 9), 1, 0.9)])  # 5 of 10 columns: IoU is exactly 0.5
    assert match_image(half, truth)[0][2] == 1
    assert match_image(boxlist((100, 80), [((0, 0, 4, 8), 1, 0.9)]), truth)[0][2] == 0


def test_average_precision_by_hand():
    # right, wrong, right, of 4 objects: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2
    precision, recall = precision_recall(np.array([0.5, 0.9, 0.7]), np.array([1, 1, 0]), 4)
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3]) and recall.tolist() == [0.25, 0.25, 0.5]
    assert average_precision(precision, recall) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    # recalls 0, 0.1, 0.2 at precision 1; 0.3, 0.4, 0.5 at 2/3; nothing beyond
    assert average_precision(precision, recall, eleven_points=True) == pytest.approx((3 + 3 * 2 / 3) / 11)


def test_ignored_detections_change_nothing():
    scores, outcomes = np.array([0.9, 0.8, 0.7, 0.6]), np.array([-1, 1, -1, 0])
    with_them = precision_recall(scores, outcomes, 2)
    without = precision_recall(scores[[1, 3]], outcomes[[1, 3]], 2)
    for eleven in (False, True):
        assert average_precision(*with_them, eleven) == average_precision(*without, eleven)


def test_average_precision_agrees_with_its_definition(rng_seed):
    rng = np.random.default_rng(rng_seed)
    outcomes = rng.integers(0, 2, 40)
    precision, recall = precision_recall(rng.random(40), outcomes, int(outcomes.sum()) + 3)
    levels = np.unique(recall[recall > 0])
    best = [precision[recall >= level].max() for level in levels]
    area = sum(p * step for p, step in zip(best, np.diff(np.append(0, levels)), strict=True))
    assert average_precision(precision, recall) == pytest.approx(area)
    points = [precision[recall >= t].max() if (recall >= t).any() else 0 for t in np.arange(0, 1.1, 0.1)]
    assert average_precision(precision, recall, eleven_points=True) == pytest.approx(np.mean(points))


def test_no_detections_are_zero():
    empty = precision_recall(np.zeros(0), np.zeros(0), 3)
    assert average_precision(*empty) == average_precision(*empty, eleven_points=True) == 0


def test_figures_log_and_files(boxlist, tmp_path, caplog):
    dataset = Images([[(BOX, 1, 0), (OTHER, 2, 0)], [(FAR, 2, 0)], []])
    predictions = [
        boxlist((200, 160), [((20, 20, 58, 58), 1, 0.9), ((100, 20, 138, 58), 2, 0.8)]),
        boxlist((200, 160), []),
        None,
    ]
    with caplog.at_level(logging.INFO, logger="maskrcnn_benchmark.inference"):
        results = voc_evaluation(dataset, predictions, str(tmp_path))
        check_expected_results(results, [["voc", "mAP", [0.77, 0.01]]], 4)
    assert results["ap"][1] == pytest.approx(1) and results["ap"][2] == pytest.approx(6 / 11)
    assert results["ap_area"][2] == pytest.approx(0.5)
    assert math.isnan(results["ap"][0]) and math.isnan(results["ap"][3])
    assert results["map"] == pytest.approx((1 + 6 / 11) / 2) and results["map_area"] == pytest.approx(0.75)
    assert results.results == {"voc": {"mAP": results["map"], "mAP_area": results["map_area"]}}
    text = "mAP: 0.7727\nant             : 1.0000\nbee             : 0.5455\ncat             : nan\n"
    assert (tmp_path / "result.txt").read_text() == text
    record = json.loads((tmp_path / "voc_results.json").read_text())
    assert record["per_class"][1] == {"name": "bee", "boxes": 2, "difficult": 0, "AP": 6 / 11, "AP_area": 0.5}
    assert record["per_class"][2]["AP"] is None
    messages = [entry.getMessage() for entry in caplog.records]
    assert messages[0] == "performing voc evaluation, ignored iou_types." and text in messages
    assert "1 of 3 images have no predictions" in messages[1] and messages[-1].startswith("PASS: voc > mAP")


def test_nothing_to_find_is_not_computed(boxlist):
    results = voc_evaluation(Images([[]]), [boxlist((100, 80), [(BOX, 1, 0.9)])], None)
    assert results.results == {"voc": {"mAP": -1, "mAP_area": -1}}


def test_detections_of_another_model_are_named(boxlist):
    dataset = Images([[(BOX, 1, 0)]])
    with pytest.raises(ValueError, match=r"label \[4\].*1 to 3"):
        voc_evaluation(dataset, [boxlist((100, 80), [(BOX, 4, 0.9)])], None)
    with pytest.raises(ValueError, match="labels and scores"):
        voc_evaluation(dataset, [BoxList([BOX], (100, 80))], None, box_only=True)


def test_ground_truth_of_real_data_is_a_perfect_detector(shared_data):
    folder = shared_data("bccd")
    dataset = PascalVOCDataset(folder, "test", use_difficult=True, class_names="from the data")
    predictions = []
    for index in range(len(dataset)):
        truth = dataset.get_groundtruth(index)
        found = truth.copy_with_fields("labels").resize((800, 600))
        found.add_field("scores", torch.ones(len(truth)))
        predictions.append(found)
    results = evaluate(dataset, predictions, None)
    assert results["map"] == pytest.approx(1, abs=0.02)  # some boxes are annotated twice


def test_continuous_detections_are_converted_to_inclusive_boxes(boxlist):
    dataset = Images([[(BOX, 1, 0)]])
    found = boxlist((100, 80), [(BOX, 1, 0.9)]).with_offset(0)
    assert _in_original_size(found, dataset, 0).bbox.tolist() == [list(BOX)]
