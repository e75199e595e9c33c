import json
import logging

import pytest
import torch

from maskrcnn_benchmark.checkpoint.safe_unpickle import load_pickled
from maskrcnn_benchmark.evaluation.coco import coco_evaluation, prepare_for_coco_detection
from maskrcnn_benchmark.evaluation.coco_results import COCOResults, check_expected_results
from maskrcnn_benchmark.structures.bounding_box import BoxList


@pytest.fixture
def two_images(coco_dataset):
    return coco_dataset(
        {30: (100, 80), 7: (100, 80)},
        [(30, 5, [10, 10, 20, 20]), (30, 90, [50, 20, 30, 40]), (7, 5, [0, 0, 100, 80])],
        {90: "last", 5: "first"},
    )


@pytest.fixture
def perfect(boxlist):
    """Return the ground truth of two_images as detections, in a network input twice as large."""
    return [
        boxlist((200, 160), [((20, 20, 58, 58), 1, 0.9), ((100, 40, 158, 118), 2, 0.8)]),
        boxlist((200, 160), [((0, 0, 198, 158), 1, 0.7)]),
    ]


def test_results_are_in_original_pixels_json_ids_and_unrounded(two_images, perfect):
    results = prepare_for_coco_detection(perfect, two_images)
    score = torch.tensor(0.9).item()
    assert results[0] == {"image_id": 30, "category_id": 5, "bbox": [10.0, 10.0, 20.0, 20.0], "score": score}
    assert [(entry["image_id"], entry["category_id"]) for entry in results] == [(30, 5), (30, 90), (7, 5)]
    assert results[2]["bbox"] == [0.0, 0.0, 100.0, 80.0]


def test_figures_and_files(two_images, perfect, tmp_path):
    results, detections = coco_evaluation(two_images, perfect, str(tmp_path))
    assert isinstance(results, COCOResults) and list(detections) == ["bbox"]
    assert results.results["bbox"]["AP"] == pytest.approx(1)
    assert json.loads((tmp_path / "bbox.json").read_text()) == detections["bbox"]
    saved = load_pickled(tmp_path / "coco_results.pth", {(COCOResults.__module__, "COCOResults"): COCOResults})
    record = json.loads((tmp_path / "coco_results.json").read_text())
    assert saved.results == results.results == record["results"]
    assert record["images"] == 2 and record["detections"] == {"bbox": 3}
    first, last = record["per_class"]["bbox"]
    assert (first["name"], first["category_id"], first["boxes"], first["AP"]) == ("first", 5, 2, pytest.approx(1))
    assert (last["name"], last["category_id"], last["boxes"], last["AP50"]) == ("last", 90, 1, pytest.approx(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bbox.json",
        "coco_results.json",
        "coco_results.pth",
        "instances.json",
    ]


def test_log_lines_of_the_forks(two_images, perfect, caplog):
    with caplog.at_level(logging.INFO, logger="maskrcnn_benchmark.inference"):
        results = coco_evaluation(two_images, perfect, None)
        check_expected_results(results, [["bbox", "AP", [1.0, 0.01]]], 4)
    assert {record.name for record in caplog.records} == {"maskrcnn_benchmark.inference"}
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:3] == ["Preparing results for COCO format", "Preparing bbox results", "Evaluating predictions"]
    assert messages[3].startswith("\nTask: bbox\nAP, AP50, AP75, APs, APm, APl\n1.0000, 1.0000, 1.0000, ")
    assert "bbox, per class:" in messages[4] and "first      2  1.0000  1.0000" in messages[4]
    assert messages[5].startswith("PASS: bbox > AP")


def test_per_class_figures_differ_between_classes(two_images, boxlist, tmp_path):
    only_first = [boxlist((100, 80), [((10, 10, 29, 29), 1, 0.9)]), boxlist((100, 80), [((0, 0, 99, 79), 1, 0.9)])]
    results, _ = coco_evaluation(two_images, only_first, str(tmp_path))
    figures = json.loads((tmp_path / "coco_results.json").read_text())["per_class"]["bbox"]
    assert [entry["AP"] for entry in figures] == pytest.approx([1, 0])
    assert results.results["bbox"]["AP"] == pytest.approx(0.5)


def test_images_without_predictions_count_as_missed(two_images, perfect, caplog):
    with caplog.at_level(logging.WARNING):
        with_none, _ = coco_evaluation(two_images, [perfect[0], None], None)
    assert "1 of 2 images" in caplog.text
    by_index, _ = coco_evaluation(two_images, {0: perfect[0]}, None)
    # class "first": one of two objects; class "last": all
    assert with_none.results["bbox"]["AP"] == pytest.approx((51 / 101 + 1) / 2)
    assert by_index.results == with_none.results


def test_no_detections_give_zero_and_an_empty_file(two_images, boxlist, tmp_path):
    results, detections = coco_evaluation(two_images, [boxlist((9, 9), []), boxlist((9, 9), [])], str(tmp_path))
    assert detections == {"bbox": []} and (tmp_path / "bbox.json").read_text() == "[]"
    assert results.results["bbox"]["AP"] == results.results["bbox"]["AP50"] == 0


def test_no_ground_truth_is_not_computed(coco_dataset, boxlist):
    dataset = coco_dataset({1: (50, 50)}, [], {1: "thing"})
    results, _ = coco_evaluation(dataset, [boxlist((50, 50), [((0, 0, 9, 9), 1, 0.5)])], None)
    assert set(results.results["bbox"].values()) == {-1}


def test_detections_that_are_not_finite_are_dropped(two_images, boxlist, caplog):
    broken = boxlist(
        (100, 80),
        [((10, 10, 29, 29), 1, 0.9), ((0, 0, float("nan"), 9), 1, 0.9), ((0, 0, 9, 9), 1, float("inf"))],
    )
    with caplog.at_level(logging.WARNING):
        results = prepare_for_coco_detection([broken], two_images)
    assert len(results) == 1 and "2 detections" in caplog.text


def test_a_label_that_the_dataset_does_not_have_is_an_error(two_images, boxlist):
    with pytest.raises(ValueError, match=r"image 7 .* label \[3\].*labels 1 to 2"):
        prepare_for_coco_detection([None, boxlist((100, 80), [((0, 0, 9, 9), 3, 0.5)])], two_images)


def test_unknown_iou_type_is_named_before_any_work(two_images):
    with pytest.raises(ValueError, match=r"\['contour'\].*bbox"):
        coco_evaluation(two_images, [], None, iou_types=("bbox", "contour"))


def test_proposals_give_recall(two_images, tmp_path, caplog):
    proposals = BoxList([[10, 10, 29, 29], [50, 20, 79, 59]], (100, 80))
    proposals.add_field("objectness", torch.tensor([0.9, 0.8]))
    with caplog.at_level(logging.INFO, logger="maskrcnn_benchmark.inference"):
        results, lists = coco_evaluation(two_images, [proposals, None], str(tmp_path), box_only=True)
    assert lists == {} and 0 < results.results["box_proposal"]["AR@100"] < 1
    assert "Evaluating bbox proposals" in caplog.messages
    saved = load_pickled(tmp_path / "box_proposals.pth", {(COCOResults.__module__, "COCOResults"): COCOResults})
    figures = saved.results["box_proposal"]
    assert figures["AR@100"] == pytest.approx(2 / 3) and figures["ARs@100"] == 1 and figures["ARl@100"] == -1
    assert json.loads((tmp_path / "box_proposals.json").read_text())["results"] == saved.results


def test_continuous_detections_keep_their_sides_and_empty_ones_are_dropped(two_images, perfect):
    inclusive = prepare_for_coco_detection(perfect, two_images)
    continuous = [boxes.with_offset(0) for boxes in perfect]
    found = prepare_for_coco_detection(continuous, two_images)
    # a continuous side scales like any length; the + 1 of an inclusive side does not scale
    assert [entry["bbox"] for entry in found] == [[10, 10, 19.5, 19.5], [50, 20, 29.5, 39.5], [0, 0, 99.5, 79.5]]
    continuous[1].bbox[0, 2] = 0
    assert prepare_for_coco_detection(continuous, two_images) == found[:2] and len(inclusive) == 3
