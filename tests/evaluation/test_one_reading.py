"""Training and evaluation read a file by the same rules: a dataset's objects as detections have AP 1."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.coco_folder import CocoFolder
from helpers.odd_coco import odd_content

from maskrcnn_benchmark.data.datasets import COCODataset, PascalVOCDataset
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.evaluation import evaluate
from maskrcnn_benchmark.evaluation.coco_evaluator import EVALUATORS

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def perfect(dataset) -> list:
    predictions = []
    for index in range(len(dataset)):
        target = dataset.get_groundtruth(index)
        found = target.copy_with_fields("labels")
        found.add_field("scores", torch.full((len(target),), 0.9))
        width, height = target.size
        if target.has_field("masks"):
            found.add_field(
                "mask", target.get_field("masks").convert("mask").instances.masks.view(-1, 1, height, width)
            )
        if target.has_field("keypoints"):
            found.add_field("keypoints", target.get_field("keypoints"))
        predictions.append(found)
    return predictions


def bytes_as_text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize("crowd_as_objects", [False, True])
@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_the_objects_of_an_odd_file_have_ap_1(tmp_path, monkeypatch, rng_seed, evaluator, crowd_as_objects):
    pytest.importorskip(evaluator)
    monkeypatch.setattr("maskrcnn_benchmark.evaluation.coco_evaluator.EVALUATORS", (evaluator,))
    reading = Reading(crowd_as_objects=crowd_as_objects)
    for round_number in range(4):
        rng = np.random.default_rng((rng_seed, round_number))
        (tmp_path / str(round_number)).mkdir()
        folder = CocoFolder(tmp_path / str(round_number))
        path = folder.root / "odd.json"
        path.write_text(json.dumps(odd_content(rng, folder), default=bytes_as_text))
        root = folder.root / "images"
        try:
            training = COCODataset(path, root, True, reading=reading)
        except ValueError as error:
            assert "nothing is left to train on" in str(error)
            continue
        assert training.class_names.count("zoo") == 0
        for dataset in (COCODataset(path, root, False, reading=reading), training):
            kinds = ["bbox"] + ["segm"] * dataset.has_masks + ["keypoints"] * (dataset.num_keypoints > 0)
            results = evaluate(dataset, perfect(dataset), None, iou_types=kinds, keypoint_sigmas=[0.05])
            for kind in kinds[:2]:
                assert results.results[kind]["AP"] == pytest.approx(1), (kind, str(dataset.report))
                assert all(v == pytest.approx(1) or v == -1 for v in results.results[kind].values())
            if "keypoints" in kinds:
                visible = sum(
                    int((dataset.get_groundtruth(i).get_field("keypoints").keypoints[..., 2] > 0).sum())
                    for i in range(len(dataset))
                )
                assert results.results["keypoints"]["AP"] == pytest.approx(1 if visible else -1)


def test_repeated_voc_objects_count_once(tmp_path):
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).mkdir()
    folder = CocoFolder(tmp_path)
    folder.add_image(1, file_name="1.jpg").rename(tmp_path / "JPEGImages" / "1.jpg")
    box = "<bndbox><xmin>5</xmin><ymin>6.0</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
    thing = f"<object><name>cat</name>{box}</object>"
    (tmp_path / "Annotations" / "1.xml").write_text(f"<annotation>{thing * 2}</annotation>")
    dataset = PascalVOCDataset(
        image_dir=tmp_path / "JPEGImages", annotation_dir=tmp_path / "Annotations", class_names=["cat"], name="zoo"
    )
    assert len(dataset.get_groundtruth(0)) == 1 and dataset.report.count("repeated objects") == 1
    assert evaluate(dataset, perfect(dataset), None)["map_area"] == pytest.approx(1)


def test_more_objects_than_coco_evaluates_give_a_warning(tmp_path, caplog):
    folder = CocoFolder(tmp_path)
    folder.add_image(1, (300, 300))
    for number in range(110):
        folder.add_box(1, [number % 15 * 20, number // 15 * 20, 9, 9])
    dataset = COCODataset(**folder.write(), remove_images_without_annotations=False)
    assert evaluate(dataset, perfect(dataset), None).results["bbox"]["AP"] < 1
    assert "1 images have more than 100 objects of a class (image ids 1)" in caplog.text


def test_annotations_that_are_not_evaluated_are_counted_in_a_warning(tmp_path, caplog):
    folder = CocoFolder(tmp_path)
    folder.add_image(1)
    for box in ([5, 5, 9, 9], [5, 5, 0.5, 9]):
        folder.add_box(1, box)
    dataset = COCODataset(**folder.write(), remove_images_without_annotations=False)
    assert evaluate(dataset, perfect(dataset), None).results["bbox"]["AP"] == pytest.approx(1)
    assert "not evaluated: 1 box without area (at most one pixel wide or high) (annotation ids 2)" in caplog.text
