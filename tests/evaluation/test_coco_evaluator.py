import copy
import json
import logging

import numpy as np
import pytest

from maskrcnn_benchmark.evaluation.coco_evaluator import (
    EVALUATORS,
    available_evaluator,
    compute_thresholds_for_classes,
    per_class_figures,
    run_evaluator,
)
from maskrcnn_benchmark.evaluation.ground_truth import load_ground_truth


@pytest.fixture(params=EVALUATORS)
def evaluator(request):
    pytest.importorskip(request.param)
    return request.param


def _content(annotations, categories=(1,), images=(1,)):
    return {
        "info": {},
        "images": [{"id": i, "width": 200, "height": 200} for i in images],
        "annotations": [
            {"id": k + 1, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for k, (i, c, b) in enumerate(annotations)
        ],
        "categories": [{"id": c, "name": f"class {c}"} for c in categories],
    }


def _detection(image_id, category_id, box, score):
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def test_one_perfect_detection(evaluator):
    stats = run_evaluator(
        _content([(1, 1, [10, 10, 50, 50])]), [_detection(1, 1, [10, 10, 50, 50], 0.3)], evaluator=evaluator
    ).stats
    assert list(stats[:6]) == pytest.approx([1, 1, 1, -1, 1, -1])


def test_duplicates_reduce_precision_only_before_the_last_hit(evaluator):
    ground_truth = _content([(1, 1, [10, 10, 50, 50]), (1, 1, [100, 100, 50, 50])])
    good = [_detection(1, 1, [10, 10, 50, 50], 0.9), _detection(1, 1, [100, 100, 50, 50], 0.5)]
    last = run_evaluator(ground_truth, [*good, _detection(1, 1, [10, 10, 50, 50], 0.1)], evaluator=evaluator)
    assert last.stats[0] == pytest.approx(1)
    # hits at ranks 1 and 3: precision 1 up to recall 0.5 (51 of 101 levels), 2/3 beyond
    between = run_evaluator(ground_truth, [*good, _detection(1, 1, [10, 10, 50, 50], 0.7)], evaluator=evaluator)
    assert between.stats[0] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_wrong_class_matches_nothing(evaluator):
    ground_truth = _content([(1, 1, [10, 10, 50, 50])], categories=(1, 7))
    stats = run_evaluator(ground_truth, [_detection(1, 7, [10, 10, 50, 50], 0.9)], evaluator=evaluator).stats
    assert stats[0] == 0


def test_overlap_decides_which_thresholds_are_passed(evaluator):
    # 64x41 inside 64x50: IoU 0.82 passes 0.50 to 0.80, 7 of 10 thresholds
    stats = run_evaluator(
        _content([(1, 1, [0, 0, 64, 50])]), [_detection(1, 1, [0, 0, 64, 41], 0.9)], evaluator=evaluator
    ).stats
    assert list(stats[:3]) == pytest.approx([0.7, 1, 1])


def test_image_without_objects_only_adds_false_positives(evaluator):
    ground_truth = _content([(1, 1, [10, 10, 50, 50])], images=(1, 2))
    right = _detection(1, 1, [10, 10, 50, 50], 0.5)
    assert run_evaluator(ground_truth, [right], evaluator=evaluator).stats[0] == pytest.approx(1)
    wrong = _detection(2, 1, [10, 10, 50, 50], 0.9)
    assert run_evaluator(ground_truth, [right, wrong], evaluator=evaluator).stats[0] == pytest.approx(0.5)


def test_no_detections_at_all(evaluator):
    stats = run_evaluator(_content([(1, 1, [10, 10, 50, 50])]), [], evaluator=evaluator).stats
    assert list(stats[:6]) == [0, 0, 0, -1, 0, -1]


def test_no_ground_truth_at_all(evaluator):
    coco_eval = run_evaluator(_content([]), [_detection(1, 1, [10, 10, 50, 50], 0.5)], evaluator=evaluator)
    assert list(coco_eval.stats[:6]) == [-1] * 6
    assert per_class_figures(coco_eval, _content([]), {})[0].AP == -1


def test_detections_on_crowd_are_ignored(evaluator):
    ground_truth = _content([(1, 1, [10, 10, 50, 50]), (1, 1, [100, 0, 90, 190])])
    ground_truth["annotations"][1]["iscrowd"] = 1
    in_crowd = [_detection(1, 1, [110, y, 20, 20], 0.9) for y in (0, 40, 80)]
    coco_eval = run_evaluator(ground_truth, [*in_crowd, _detection(1, 1, [10, 10, 50, 50], 0.5)], evaluator=evaluator)
    assert coco_eval.stats[0] == pytest.approx(1)
    assert per_class_figures(coco_eval, ground_truth, {1: "cell"})[0].boxes == 1


def test_boxes_of_images_with_texts_as_ids_are_counted(evaluator):
    ground_truth = _content([("a.jpg", 1, [10, 10, 50, 50])], images=("a.jpg", "b.jpg"))
    coco_eval = run_evaluator(ground_truth, [], evaluator=evaluator)
    assert per_class_figures(coco_eval, ground_truth, {1: "cell"})[0].boxes == 1


def test_per_class_figures_by_hand(evaluator):
    ground_truth = _content(
        [(1, 2, [0, 0, 40, 40]), (1, 2, [100, 0, 40, 40]), (1, 9, [0, 100, 40, 40])], categories=(9, 2, 30)
    )
    detections = [_detection(1, 2, [0, 0, 40, 40], 0.9), _detection(1, 9, [0, 100, 40, 26], 0.9)]
    coco_eval = run_evaluator(ground_truth, detections, evaluator=evaluator)
    two, nine, thirty = per_class_figures(coco_eval, ground_truth, {2: "two", 9: "nine"})
    assert (two.name, two.category_id, two.boxes) == ("two", 2, 2)
    assert two.AP == two.AP50 == pytest.approx(51 / 101)  # one of two objects detected: recall levels 0 to 0.5
    assert (nine.boxes, nine.AP50, nine.AP) == (1, pytest.approx(1), pytest.approx(0.4))  # IoU 0.65
    assert (thirty.name, thirty.boxes, thirty.AP) == ("30", 0, -1)
    assert np.mean([two.AP, nine.AP]) == pytest.approx(coco_eval.stats[0])


def test_summary_lines_equal_pycocotools(evaluator, capsys):
    run_evaluator(_content([(1, 1, [10, 10, 50, 50])]), [_detection(1, 1, [10, 10, 50, 50], 1)], evaluator=evaluator)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000"
    assert lines[11] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = -1.000"


def test_inputs_are_not_modified(evaluator, random_scenes, rng_seed):
    ground_truth, detections = random_scenes(np.random.default_rng(rng_seed))
    before = copy.deepcopy((ground_truth, detections))
    run_evaluator(ground_truth, detections, evaluator=evaluator)
    assert (ground_truth, detections) == before


def _assert_equal_figures(ground_truth, detections):
    fast, slow = (run_evaluator(ground_truth, detections, evaluator=name) for name in EVALUATORS)
    # both sum the same numbers, the C++ evaluator in another order
    np.testing.assert_allclose(fast.stats[:12], slow.stats[:12], rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast.eval["precision"], slow.eval["precision"], rtol=0, atol=1e-12)
    for a, b in zip(*(per_class_figures(result, ground_truth, {}) for result in (fast, slow)), strict=True):
        assert (a.name, a.category_id, a.boxes) == (b.name, b.category_id, b.boxes)
        assert (a.AP, a.AP50) == pytest.approx((b.AP, b.AP50), abs=1e-12)


def test_both_evaluators_agree_on_random_scenes(random_scenes, rng_seed):
    for name in EVALUATORS:
        pytest.importorskip(name)
    rng = np.random.default_rng(rng_seed)
    for _ in range(5):
        _assert_equal_figures(*random_scenes(rng))


def test_both_evaluators_agree_on_real_annotations(shared_data, rng_seed):
    for name in EVALUATORS:
        pytest.importorskip(name)
    rng = np.random.default_rng(rng_seed)
    ground_truth = load_ground_truth(shared_data("coco_tiny") / "annotations" / "instances_val2017.json")
    detections = []
    for annotation in ground_truth["annotations"]:
        x, y, w, h = annotation["bbox"]
        for score in rng.random(rng.integers(0, 4)):
            dx, dy, dw, dh = rng.normal(0, 0.1, 4) * (w, h, w, h)
            box = [x + dx, y + dy, max(w + dw, 1), max(h + dh, 1)]
            detections.append(_detection(annotation["image_id"], annotation["category_id"], box, float(score)))
    _assert_equal_figures(ground_truth, detections)


def test_missing_keys_are_filled_in_and_ids_are_renumbered(tmp_path, evaluator):
    path = tmp_path / "bare.json"
    bare = {"image_id": 4, "category_id": 1, "bbox": [10, 10, 40, 50]}
    content = {
        "images": [{"id": 4, "file_name": "4.jpg", "width": 99, "height": 99}],
        "annotations": [bare, {**bare, "id": 0, "bbox": [60, 10, 30, 30]}],
        "categories": [{"id": 1, "name": "cell"}],
    }
    path.write_text(json.dumps(content))
    ground_truth = load_ground_truth(path)
    assert ground_truth["annotations"][0] == {**bare, "id": 1, "area": 2000, "iscrowd": 0}
    detections = [_detection(4, 1, annotation["bbox"], 0.5) for annotation in content["annotations"]]
    assert run_evaluator(ground_truth, detections, evaluator=evaluator).stats[0] == pytest.approx(1)
    assert json.loads(path.read_text()) == content


def test_image_ids_may_be_strings(evaluator, random_scenes, rng_seed):
    ground_truth, detections = random_scenes(np.random.default_rng(rng_seed))
    expected = run_evaluator(ground_truth, detections, evaluator=evaluator).stats
    ground_truth["images"] = [{**image, "id": f"frame {image['id']:02d}"} for image in ground_truth["images"]]
    for entry in (*ground_truth["annotations"], *detections):
        entry["image_id"] = f"frame {entry['image_id']:02d}"
    before = copy.deepcopy((ground_truth, detections))
    assert run_evaluator(ground_truth, detections, evaluator=evaluator).stats == pytest.approx(expected)
    assert (ground_truth, detections) == before


def test_detections_of_other_images_are_named(evaluator, random_scenes, rng_seed):
    ground_truth, detections = random_scenes(np.random.default_rng(rng_seed))
    detections += [_detection(image_id, 3, [1, 1, 5, 5], 0.5) for image_id in (6, 400)]
    with pytest.raises(ValueError, match="2 images with detections are not in the ground truth: 400, 6"):
        run_evaluator(ground_truth, detections, evaluator=evaluator)


CELLS = [{"id": 1, "name": "cell"}]


def test_unusable_and_flat_boxes_are_not_evaluated_and_counted(tmp_path, caplog):
    path = tmp_path / "bad.json"
    boxes = [[1, 1, 5, 5], [1, 1, float("nan"), 5], None, [1, 2, 3], "box", [4, 4, 0, 9]]
    annotations = [{"id": k, "image_id": 1, "category_id": 1, "bbox": box} for k, box in enumerate(boxes)]
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": annotations, "categories": CELLS}
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        ground_truth = load_ground_truth(path)
    assert [annotation["bbox"] for annotation in ground_truth["annotations"]] == [[1, 1, 5, 5]]
    assert "4 boxes that are missing, not four numbers" in caplog.text and "1 box without area" in caplog.text


def test_a_file_that_is_not_a_coco_file_is_named(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"other\.json holds a list; wanted a COCO instances file"):
        load_ground_truth(path)


def test_without_evaluators_the_error_names_the_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install faster-coco-eval"):
        available_evaluator()


def test_score_thresholds_of_classes_balance_precision_and_recall(evaluator, capsys):
    def box(x):
        return [x, 0.0, 10.0, 10.0]

    ground_truth = {
        "info": {},
        "licenses": [],
        "images": [{"id": 1, "width": 200, "height": 200}],
        "categories": [{"id": number, "name": str(number)} for number in (1, 2, 3)],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": k, "bbox": box(x), "area": 100.0, "iscrowd": 0}
            for n, (k, x) in enumerate([(1, 0.0), (1, 50.0), (2, 0.0)], start=1)
        ],
    }
    detections = [
        {"image_id": 1, "category_id": 1, "bbox": box(x), "score": score}
        for x, score in ((0.0, 0.75), (100.0, 0.5), (50.0, 0.25), (150.0, 0.125))
    ]
    coco_eval = run_evaluator(ground_truth, detections, "bbox", evaluator)
    capsys.readouterr()
    thresholds, measures = compute_thresholds_for_classes(coco_eval)
    # class 1: both objects are among the first three detections, precision 2/3, recall 1; class 2: no detection; class
    # 3: no object
    assert thresholds == pytest.approx([0.25, 0, -1])
    assert measures == pytest.approx([0.8, 0, -1], abs=1e-4)
    assert capsys.readouterr().out.splitlines() == [
        "Maximum f-measures for classes:",
        str(measures),
        "Score thresholds for classes (used in demos for visualization purposes):",
        str(thresholds),
    ]
