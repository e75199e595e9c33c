"""Panoptic evaluation of datasets: files, figures, and ground truth against itself."""

import json
import logging

import numpy as np
import pytest
import torch
from helpers.panoptic_folder import CAT, DOG, GRASS, SKY, PanopticFolder

from maskrcnn_benchmark.data.datasets import COCOPanopticDataset
from maskrcnn_benchmark.evaluation import evaluate, load_predictions, save_predictions
from maskrcnn_benchmark.evaluation.panoptic_results import read_panoptic_results, write_panoptic_results
from maskrcnn_benchmark.modeling.detector.panoptic_merge import MergeRules, share_pixels
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.packed_map import PackedMap
from maskrcnn_benchmark.structures.panoptic_map import PanopticMap
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL


@pytest.fixture
def dataset(tmp_path, rng_seed):
    folder = PanopticFolder(tmp_path / "data")
    folder.add(7, [(300, GRASS, (0, 10, 40, 20)), (9, CAT, (5, 12, 10, 10)), (11, CAT, (20, 12, 10, 10))])
    folder.add(8, [(5, SKY, (0, 0, 40, 30)), (6, DOG, (1, 1, 20, 20)), (4, DOG, (25, 5, 9, 9), {"iscrowd": 1})])
    return COCOPanopticDataset(
        **folder.write(), remove_images_without_annotations=False, segments_dir=str(folder.root / "segments")
    )


def prediction(size=(40, 30), **fields):
    boxes = BoxList(torch.zeros(0, 4), size)
    for name, data in fields.items():
        boxes.add_field(name, data)
    return boxes


def truth_as_predictions(dataset):
    return [prediction(panoptic=dataset.panoptic(index)) for index in range(len(dataset))]


def test_ground_truth_against_itself_is_perfect_and_written_in_coco_format(dataset, tmp_path):
    results = evaluate(dataset, truth_as_predictions(dataset), str(tmp_path))
    assert set(results.results["panoptic"].values()) == {1.0}
    written = json.loads((tmp_path / "panoptic.json").read_text())
    entries = {entry["image_id"]: entry for entry in written["annotations"]}
    assert entries[7]["file_name"] == "7.png" and (tmp_path / "panoptic" / "7.png").exists()
    assert entries[7]["segments_info"][1] == {
        "id": 2,
        "area": 100,
        "bbox": [5, 12, 10, 10],
        "category_id": CAT,
        "iscrowd": 0,
    }
    record = json.loads((tmp_path / "panoptic_results.json").read_text())
    assert record["results"]["panoptic"]["PQ"] == 1.0 and record["images"] == 2
    assert [row["class"] for row in record["per_class"]["panoptic"]] == ["cat", "dog", "grass", "sky"]


def test_written_files_are_read_as_results_and_as_ground_truth(dataset, tmp_path):
    found = {index: dataset.panoptic(index) for index in range(len(dataset))}
    write_panoptic_results(dataset, found, str(tmp_path))
    again = read_panoptic_results(dataset, str(tmp_path / "panoptic.json"), str(tmp_path / "panoptic"))
    for index, panoptic in again.items():
        assert (panoptic.unpack() == found[index].unpack()).all()
        assert [segment["label"] for segment in panoptic.segments] == [
            segment["label"] for segment in found[index].segments
        ]
    as_data = COCOPanopticDataset(str(tmp_path / "panoptic.json"), dataset.root, False)
    assert as_data.semantic_names == dataset.semantic_names
    assert torch.equal(as_data[0][1].bbox, dataset[0][1].bbox)


def test_figures_by_hand(dataset):
    ids = dataset.panoptic(0).unpack()
    ids[ids == 3] = 1  # the second cat is predicted as grass: 100 extra pixels on 600
    segments = [
        {"label": 1, "is_thing": False},
        {"label": 1, "is_thing": True, "score": 0.9},
        {"label": 2, "is_thing": False},
    ]
    results = evaluate(dataset, {0: prediction(panoptic=PanopticMap(ids, segments[:2]))}, None).results["panoptic"]
    cat, grass = 1 / 1.5, 600 / 700
    assert results["PQ"] == pytest.approx((cat + grass + 0 + 0) / 4)  # the other image has no prediction
    assert results["PQ_th"] == pytest.approx(cat / 2) and results["PQ_st"] == pytest.approx(grass / 2)
    assert results["SQ_th"] == pytest.approx(1 / 2) and results["RQ_th"] == pytest.approx(1 / 1.5 / 2)


def test_semantic_maps_are_evaluated_if_predicted(dataset):
    predictions = truth_as_predictions(dataset)
    for index, boxes in enumerate(predictions):
        found = dataset[index][1].get_field("semantic").labels.numpy().copy()
        found[found == 255] = 0
        boxes.add_field("semantic", PackedMap(found))
    assert set(evaluate(dataset, predictions, None).results["semantic"].values()) == {1.0}
    predictions[0].add_field("semantic", PackedMap(np.zeros((30, 40))))
    # grass is not predicted: its 600 pixels become things, besides the true 200 + 481
    iou = {"things": 681 / 1281, "grass": 0, "sky": 1}
    assert evaluate(dataset, predictions, None).results["semantic"]["mIoU"] == pytest.approx(sum(iou.values()) / 3)


def test_pixels_of_images_without_a_prediction_are_missed(dataset):
    predictions = truth_as_predictions(dataset)
    labelled = []
    for index, boxes in enumerate(predictions):
        found = dataset[index][1].get_field("semantic").labels.numpy().copy()
        labelled.append((found != 255).sum())
        found[found == 255] = 0
        boxes.add_field("semantic", PackedMap(found))
    figures = evaluate(dataset, {0: predictions[0]}, None).results["semantic"]
    assert figures["pACC"] == pytest.approx(labelled[0] / sum(labelled))


def test_instances_are_evaluated_if_there_is_an_instances_file(shared_data, caplog):
    data = shared_data("coco_panoptic_mini")
    dataset = COCOPanopticDataset(
        str(data / "annotations" / "panoptic_train2017.json"),
        str(data / "images" / "train2017"),
        False,
        instances_file=str(data / "annotations" / "instances_from_panoptic_train2017.json"),
    )
    predictions = []
    for index in range(len(dataset)):
        target = dataset.get_groundtruth(index)
        boxes = target.copy_with_fields(["labels"])
        boxes.add_field("scores", torch.linspace(0.9, 0.8, len(boxes)))
        boxes.add_field("mask", target.get_field("masks").convert("mask").instances.masks[:, None])
        boxes.add_field("panoptic", dataset.panoptic(index))
        predictions.append(boxes)
    with caplog.at_level(logging.INFO):
        results = evaluate(dataset, predictions, None, iou_types=("bbox", "segm")).results
    assert list(results) == ["panoptic", "bbox", "segm"]
    assert results["bbox"]["AP"] == pytest.approx(1) and results["segm"]["AP"] == pytest.approx(1)
    assert "panoptic, per class:" in caplog.text and "broccoli" in caplog.text


REAL = pytest.mark.parametrize(
    "name, ann_file, images",
    [
        ("coco_panoptic_mini", "annotations/panoptic_train2017.json", "images/train2017"),
        ("coco_panoptic_mini", "annotations/panoptic_val2017.json", "images/val2017"),
        ("panopticapi_sample", "panoptic_examples.json", "input_images"),
    ],
)


@REAL
def test_predictions_of_a_perfect_model_are_written_read_and_perfect(shared_data, tmp_path, name, ann_file, images):
    """Check the whole path: dataset, targets, merging of masks and semantic map, result files, evaluation."""
    folder = shared_data(name)
    dataset = COCOPanopticDataset(str(folder / ann_file), str(folder / images), False)
    found = {}
    for index in range(len(dataset)):
        _, target, _ = dataset[index]
        masks = target.get_field("masks").convert("mask").instances.masks.numpy().astype(bool)
        labels = target.get_field("labels").tolist()
        things = [{"label": label, "is_thing": True} for label in labels]
        instances = [(thing, mask, 0, 0) for thing, mask in zip(things, masks, strict=True)]
        classes = target.get_field("semantic").labels.numpy().copy()
        classes[classes == IGNORE_LABEL] = 0
        found[index] = share_pixels(instances, classes, MergeRules(stuff_area=1))
    write_panoptic_results(dataset, found, str(tmp_path))
    again = read_panoptic_results(dataset, str(tmp_path / "panoptic.json"), str(tmp_path / "panoptic"))
    predictions = {index: prediction(panoptic=panoptic) for index, panoptic in again.items()}
    assert set(evaluate(dataset, predictions, None).results["panoptic"].values()) == {1.0}


@REAL
def test_real_files_against_themselves_are_perfect(shared_data, name, ann_file, images):
    folder = shared_data(name)
    dataset = COCOPanopticDataset(str(folder / ann_file), str(folder / images), False)
    found = read_panoptic_results(dataset, dataset.panoptic_file, dataset.segments_dir)
    predictions = {index: prediction(panoptic=panoptic) for index, panoptic in found.items()}
    assert set(evaluate(dataset, predictions, None).results["panoptic"].values()) == {1.0}


def test_predictions_round_trip_through_their_file(dataset, tmp_path):
    predictions = truth_as_predictions(dataset)
    predictions[0].add_field("semantic", PackedMap(np.arange(1200).reshape(30, 40)))
    save_predictions(predictions, tmp_path / "predictions.pth")
    again = load_predictions(tmp_path / "predictions.pth")
    assert (again[0].get_field("semantic").unpack() == np.arange(1200).reshape(30, 40)).all()
    panoptic = again[1].get_field("panoptic")
    assert panoptic.segments == dataset.panoptic(1).segments
    assert (panoptic.unpack() == dataset.panoptic(1).unpack()).all()


def test_invalid_predictions_are_refused(dataset):
    with pytest.raises(ValueError, match="image 7 has no field 'panoptic'.*PanopticFPN"):
        evaluate(dataset, {0: prediction()}, None)
    small = PanopticMap(np.zeros((15, 20), dtype=np.uint8), [])
    with pytest.raises(ValueError, match=r"\(20, 15\), the image has 40 x 30"):
        evaluate(dataset, {0: prediction(panoptic=small)}, None)
    strange = PanopticMap(np.zeros((30, 40), dtype=np.uint8), [{"label": 3, "is_thing": False}])
    with pytest.raises(ValueError, match="stuff label 3, but dataset .* has 2 of them"):
        evaluate(dataset, {0: prediction(panoptic=strange)}, None)


def test_results_with_contradicting_json_and_maps_are_refused(dataset, tmp_path):
    found = {index: dataset.panoptic(index) for index in range(len(dataset))}
    write_panoptic_results(dataset, found, str(tmp_path))
    path = tmp_path / "panoptic.json"
    good = json.loads(path.read_text())

    def read_with(change):
        content = json.loads(json.dumps(good))
        change(content["annotations"][0])
        path.write_text(json.dumps(content))
        return read_panoptic_results(dataset, str(path), str(tmp_path / "panoptic"))

    with pytest.raises(ValueError, match="must be those in 7.png"):
        read_with(lambda entry: entry["segments_info"].pop())
    with pytest.raises(ValueError, match="must be those in 7.png"):
        read_with(lambda entry: entry["segments_info"].append({"id": 77, "category_id": CAT}))
    with pytest.raises(ValueError, match="has no category 55"):
        read_with(lambda entry: entry["segments_info"].append({"id": 77, "category_id": 55}))
    assert list(read_with(lambda entry: entry.update(image_id=12345))) == [1]
