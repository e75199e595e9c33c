"""Evaluation of masks and keypoints."""

from __future__ import annotations

import importlib.util
import json
import logging

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.evaluation import EvaluationOptions
from maskrcnn_benchmark.evaluation.coco import (
    coco_evaluation,
    prepare_for_coco_detection,
    prepare_for_coco_keypoint,
    prepare_for_coco_segmentation,
)
from maskrcnn_benchmark.evaluation.coco_evaluator import EVALUATORS, run_evaluator
from maskrcnn_benchmark.evaluation.ground_truth import ground_truth_of
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.paste_masks import MaskPasting, paste_masks
from maskrcnn_benchmark.structures.rle import decode_counts, encode_window, parse_counts

# pycocotools' arrays do not support NumPy 2's copy argument yet
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PERSON = [20.0, 20, 2, 30, 20, 2, 25, 30, 1] + [22.0, 35, 2] * 14


def decoded(entry):
    height, width = entry["segmentation"]["size"]
    return decode_counts(parse_counts(entry["segmentation"]["counts"], (height, width)), height, width)


@pytest.fixture
def dataset(coco_dataset):
    triangle = [10, 10, 49, 10, 10, 49]
    return coco_dataset(
        {30: (100, 80), 7: (100, 80)},
        [
            (30, 5, [10, 10, 40, 40], {"segmentation": [triangle], "keypoints": PERSON, "num_keypoints": 17}),
            (7, 5, [0, 0, 100, 80], {"segmentation": [[0, 0, 100, 0, 100, 80, 0, 80]]}),
        ],
        {5: "thing"},
    )


@pytest.fixture
def predictions(boxlist, rng_seed):
    """Predictions in a network input of twice the size."""
    made = [
        boxlist((200, 160), [((20, 20, 98, 98), 1, 0.9), ((100, 40, 158, 118), 1, 0.3)]),
        boxlist((200, 160), [((0, 0, 198, 158), 1, 0.7)]),
    ]
    for detections in made:
        detections.add_field("mask", torch.rand(len(detections), 1, 28, 28))
        points = torch.rand(len(detections), 17, 3) * 100
        detections.add_field("keypoints", PersonKeypoints(points, detections.size))
    return made


def test_masks_are_pasted_into_the_original_image(dataset, predictions):
    entries = prepare_for_coco_segmentation(predictions, dataset)
    assert [entry["image_id"] for entry in entries] == [30, 30, 7]
    assert entries[0].keys() == {"image_id", "category_id", "segmentation", "score"}
    json.dumps(entries)
    for entry, mask, box in zip(
        entries,
        torch.cat([detections.get_field("mask") for detections in predictions]),
        torch.cat([detections.bbox for detections in predictions]) / 2,
        strict=True,
    ):
        assert (decoded(entry) == paste_masks(mask, box[None], (100, 80))[0].numpy()).all()


def test_masks_rank_by_their_scores_and_boxes_by_theirs(dataset, predictions):
    predictions[0].add_field("mask_scores", torch.tensor([0.2, -0.1]))  # the second prediction has none
    masks = prepare_for_coco_segmentation(predictions, dataset)
    boxes = prepare_for_coco_detection(predictions, dataset)
    assert [round(entry["score"], 6) for entry in masks] == [0.2, -0.1, 0.7]
    assert [round(entry["score"], 6) for entry in boxes] == [0.9, 0.3, 0.7]


def test_the_order_of_mask_scores_decides_mask_ap(dataset, predictions, tmp_path):
    """Of two masks of one object, the right one has the lower box score and the higher mask score."""
    detections = predictions[0]
    detections.bbox = detections.bbox[:1].repeat(2, 1)
    triangle = (torch.arange(28)[:, None] + torch.arange(28) < 28).float()
    detections.add_field("mask", torch.stack((1 - triangle, triangle))[:, None])

    def mask_ap():
        results, _ = coco_evaluation(dataset, predictions, str(tmp_path), iou_types=("segm",))
        return results.results["segm"]["AP50"]

    before = mask_ap()
    detections.add_field("mask_scores", torch.tensor([0.1, 0.8]))
    assert mask_ap() > before


def test_masks_of_the_whole_image_are_used_unchanged(dataset, predictions):
    whole = predictions[0].copy_with_fields(["scores", "labels"])
    whole.add_field("mask", (torch.rand(2, 1, 80, 100) > 0.5).to(torch.uint8))
    entries = prepare_for_coco_segmentation([whole], dataset)
    assert all((decoded(e) == m[0].numpy()).all() for e, m in zip(entries, whole.get_field("mask"), strict=True))
    whole.add_field("mask", torch.zeros(2, 1, 160, 200))
    with pytest.raises(ValueError, match="POSTPROCESS_MASKS"):
        prepare_for_coco_segmentation([whole], dataset)


def test_keypoints_are_resized_and_flat(dataset, predictions):
    entries = prepare_for_coco_keypoint(predictions, dataset)
    points = predictions[0].get_field("keypoints").keypoints[1] * torch.tensor([0.5, 0.5, 1])
    assert len(entries) == 3 and entries[1]["keypoints"] == points.flatten().tolist()


def test_detections_without_finite_keypoints_are_dropped(dataset, predictions, caplog):
    predictions[0].get_field("keypoints").keypoints[0, 3, 1] = float("nan")
    with caplog.at_level(logging.WARNING):
        assert len(prepare_for_coco_keypoint(predictions, dataset)) == 2
    assert "1 detections" in caplog.text


def test_a_missing_field_is_named(dataset, boxlist):
    with pytest.raises(ValueError, match="no field mask"):
        prepare_for_coco_segmentation([boxlist((200, 160), [((0, 0, 9, 9), 1, 0.9)])], dataset)


def test_all_kinds_are_evaluated_together(dataset, predictions, tmp_path):
    predictions[0].get_field("mask").fill_(0.0)
    predictions[1].get_field("mask").fill_(1.0)
    original = PersonKeypoints(torch.tensor(PERSON).view(1, 17, 3), (100, 80)).resize((200, 160))
    predictions[0].get_field("keypoints").keypoints[0] = original.keypoints[0]
    kinds = ("bbox", "segm", "keypoints")
    results, detections = coco_evaluation(dataset, predictions, str(tmp_path), iou_types=kinds)
    assert results.results["bbox"]["AP"] == pytest.approx(1)
    # the mask with the highest score is empty, the next one correct: precision 1/2 at 51 of the 101 recall levels
    assert results.results["segm"]["AP"] == pytest.approx(0.5 * 51 / 101)
    assert results.results["keypoints"]["AP"] == pytest.approx(1)
    assert list(results.results["keypoints"]) == ["AP", "AP50", "AP75", "APm", "APl"]
    record = json.loads((tmp_path / "coco_results.json").read_text())
    assert set(record["per_class"]) == set(kinds)
    for kind in kinds:
        assert json.loads((tmp_path / f"{kind}.json").read_text()) == detections[kind]


def test_broken_shapes_do_not_reach_the_evaluator(coco_dataset):
    broken = [[1, 2, 3], [0, 0, 9, 0, 9, float("inf")]]
    ann = coco_dataset(
        {1: (20, 10)},
        [
            (1, 5, [2, 2, 4, 4], {"segmentation": broken}),
            (1, 5, [2, 2, 4, 4], {"segmentation": []}),
            (1, 5, [2, 2, 4, 4]),
            (1, 5, [2, 2, 4, 4], {"segmentation": {"counts": "abc", "size": [10, 20]}}),
            (1, 5, [2, 2, 4, 4], {"segmentation": [0, 0, 9, 0, 9, 9]}),
            (1, 5, [2, 2, 4, 4], {"segmentation": {"counts": [0, 12], "size": [3, 4]}}),
            (1, 5, [2, 2, 4, 4], {"segmentation": {"counts": [0, 200], "size": [10, 20]}, "iscrowd": 1}),
            (99, 5, [2, 2, 4, 4], {"segmentation": [[0, 0, 9, 0, 9, 9]]}),
        ],
        {5: "thing"},
    )
    fit = ground_truth_of(ann, ("segm",))
    assert fit["images"][0]["width"] == 20 and len(fit["annotations"]) == 7
    shapes = [annotation["segmentation"] for annotation in fit["annotations"]]
    assert shapes[:4] == [[[2, 2, 6, 2, 6, 6, 2, 6]]] * 4 and shapes[4] == [[0, 0, 9, 0, 9, 9]]
    assert [shape["size"] for shape in shapes[5:]] == [[10, 20], [10, 20]]
    assert decoded({"segmentation": shapes[5]}).sum() == 12
    for evaluator in EVALUATORS:
        if importlib.util.find_spec(evaluator):
            run_evaluator(fit, [], "segm", evaluator)


def test_keypoints_are_completed(coco_dataset):
    ann = coco_dataset(
        {1: (20, 10)},
        [
            (1, 5, [2, 2, 4, 4], {"keypoints": PERSON}),
            (1, 5, [2, 2, 4, 4], {"keypoints": [1, 2]}),
            (1, 5, [2, 2, 4, 4]),
        ],
        {5: "thing"},
    )
    fit = ground_truth_of(ann, ("keypoints",))
    assert [annotation["num_keypoints"] for annotation in fit["annotations"]] == [17, 0, 0]
    assert [len(annotation["keypoints"]) for annotation in fit["annotations"]] == [51] * 3


@pytest.mark.parametrize("kind", ["segm", "keypoints"])
def test_both_evaluators_agree(random_scenes, rng_seed, kind):
    for evaluator in EVALUATORS:
        pytest.importorskip(evaluator)
    rng = np.random.default_rng(rng_seed)
    content, detections = random_scenes(rng)
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}

    def shape(entry):
        x, y, w, h = entry["bbox"]
        if kind == "keypoints":
            points = np.stack([rng.normal(x, w / 9, 17), rng.normal(y, h / 9, 17), rng.integers(0, 3, 17)], axis=1)
            entry["keypoints"] = points.flatten().tolist()
            return
        width, height = sizes[entry["image_id"]]
        left, top = int(min(max(x, 0), width - 1)), int(min(max(y, 0), height - 1))
        right, bottom = int(min(x + w, width - 1)) + 1, int(min(y + h, height - 1)) + 1
        window = rng.random((max(bottom - top, 1), max(right - left, 1))) < 0.9
        entry["segmentation"] = encode_window(window, left, top, height, width)

    for entry in content["annotations"] + detections:
        shape(entry)
    detections = [{key: value for key, value in entry.items() if key != "bbox"} for entry in detections]
    for entry in content["annotations"]:
        entry["num_keypoints"] = sum(flag > 0 for flag in entry.get("keypoints", [])[2::3])
    stats = [run_evaluator(content, detections, kind, evaluator).stats for evaluator in EVALUATORS]
    count = 12 if kind == "segm" else 10
    np.testing.assert_allclose(stats[0][:count], stats[1][:count], atol=1e-9)


def test_real_masks_against_themselves_are_perfect(shared_data, tmp_path):
    folder = shared_data("coco_tiny")
    content = json.loads((folder / "annotations/instances_val2017.json").read_text())
    content["images"] = content["images"][:25]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    (tmp_path / "some.json").write_text(json.dumps(content))
    dataset = COCODataset(str(tmp_path / "some.json"), str(folder / "val2017"), remove_images_without_annotations=False)
    predictions = []
    for index in range(len(dataset)):
        target = dataset.get_groundtruth(index)
        width, height = target.size
        found = target.copy_with_fields("labels")
        found.add_field("scores", torch.ones(len(target)))
        masks = target.get_field("masks").convert("mask").instances.masks
        found.add_field("mask", masks.reshape(-1, 1, height, width))
        predictions.append(found)
    results, _ = coco_evaluation(dataset, predictions, None, iou_types=("bbox", "segm"))
    assert results.results["bbox"]["AP"] == pytest.approx(1)
    assert results.results["segm"]["AP"] == pytest.approx(1)


def test_mask_pasting_follows_the_option(coco_dataset, boxlist):
    dataset = coco_dataset({1: (100, 80)}, [], {5: "thing"})
    found = boxlist((100, 80), [((10.4, 10.4, 30.4, 30.4), 1, 0.9)])
    found.add_field("mask", torch.full((1, 1, 28, 28), 0.9))
    for pasting in (MaskPasting(), MaskPasting(padding=0), MaskPasting(aligned=True)):
        wanted = paste_masks(found.get_field("mask"), found.bbox, (100, 80), pasting=pasting)
        (entry,) = prepare_for_coco_segmentation([found], dataset, pasting)
        assert np.array_equal(decoded(entry), wanted[0].numpy())
        _, lists = coco_evaluation(
            dataset, [found], None, iou_types=("segm",), options=EvaluationOptions(mask_pasting=pasting)
        )
        assert lists["segm"] == [entry]
