import json

import numpy as np
import pytest
import torch
from helpers.cityscapes_tree import SIZE, write_tree
from PIL import Image

from maskrcnn_benchmark.data.datasets import AbstractDataset, CityScapesDataset
from maskrcnn_benchmark.evaluation import evaluate
from maskrcnn_benchmark.structures.bounding_box import BoxList


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path)


def make(tree, split="train", mode="mask", **options):
    return CityScapesDataset(tree / "leftImg8bit", tree / "gtFine", split, mode, **options)


def names_of(dataset, index):
    return [dataset.id_to_name[label] for label in dataset[index][1].get_field("labels").tolist()]


def test_mode_mask_gives_visible_pixels(tree):
    dataset = make(tree)
    image, target, index = dataset[0]
    assert (image.size, index, len(dataset)) == (SIZE, 0, 3)
    assert names_of(dataset, 0) == ["person", "car"] and dataset.image_id(0) == "aachen_000000_000019"
    assert target.bbox.tolist() == [[30, 5, 39, 49], [10, 10, 49, 39]]
    person, car = target.get_field("masks").get_mask_tensor()
    assert person.sum() == 10 * 45 and person[5:50, 30:40].all()
    assert car.sum() == 40 * 30 - 10 * 30 and not car[25, 35]


def test_mode_poly_gives_outlines_as_drawn(tree):
    dataset = make(tree, mode="poly")
    _, target, _ = dataset[0]
    assert names_of(dataset, 0) == ["car", "person"]
    assert target.bbox.tolist() == [[10, 10, 49, 39], [30, 5, 39, 49]]
    masks = target.get_field("masks")
    assert masks.mode == "poly" and masks.get_mask_tensor()[0, 25, 35]


def test_number_of_classes_matches_the_forks_configs(tree):
    assert len(make(tree, mode="mask").class_names) + 1 == 9
    poly = make(tree, mode="poly")
    assert len(poly.class_names) + 1 == 11 and names_of(poly, 2) == ["caravan", "bicycle"]
    assert names_of(make(tree, mode="mask"), 2) == ["bicycle"]
    assert names_of(make(tree, class_names=["bicycle", "caravan"]), 2) == ["caravan", "bicycle"]
    assert poly.name_to_id["__background__"] == 0 and poly.id_to_name[10] == "bicycle"


def test_min_area_mini_and_images_without_objects(tree):
    assert len(make(tree)[1][1]) == 0
    assert make(tree, remove_images_without_annotations=True).ids == ["aachen_000000_000019", "bremen_000000_000019"]
    assert make(tree, mini=1).ids == ["aachen_000000_000019"]
    assert [names_of(make(tree, mode=mode, min_area=500), 0) for mode in ("mask", "poly")] == [["car"], ["car"]]
    # boxes of one pixel are dropped in every dataset
    assert [len(make(tree, "val", mode)[1][1]) for mode in ("mask", "poly")] == [1, 1]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "masks"}, "'mask', 'poly', got 'masks'"),
        ({"class_names": ["person", "road"]}, r"no instances of \['road'\]"),
    ],
)
def test_invalid_mode_and_class_are_named(tree, options, message):
    with pytest.raises(ValueError, match=message):
        make(tree, **options)


def test_damaged_and_missing_annotations_are_named(tree):
    folder = tree / "gtFine/train/aachen"
    (folder / "aachen_000000_000019_gtFine_polygons.json").write_text('{"objects": []}')
    with pytest.raises(ValueError, match="000019_gtFine_polygons.json is not a gtFine polygons file.*imgWidth"):
        make(tree, mode="poly")
    Image.new("RGB", SIZE).save(folder / "aachen_000000_000019_gtFine_instanceIds.png")
    with pytest.raises(ValueError, match="one number per pixel"):
        make(tree)
    (folder / "aachen_000000_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 .*aachen_000000_000019_gtFine_instanceIds.png"):
        make(tree)
    with pytest.raises(FileNotFoundError, match="leftImg8bit/nowhere does not exist"):
        make(tree, split="nowhere")


def perfect(dataset, scale=2):
    """Turn the ground truth into predictions in the size of a network input."""
    found = []
    for index in range(len(dataset)):
        target = dataset.get_groundtruth(index)
        boxes = target.copy_with_fields("labels").resize([side * scale for side in target.size])
        boxes.add_field("scores", torch.linspace(0.5, 0.9, len(target)))
        if target.has_field("masks"):
            masks = target.get_field("masks").convert("mask").instances.masks
            boxes.add_field("mask", masks[:, None].float())
        found.append(boxes)
    return found


@pytest.mark.parametrize("mode", ["mask", "poly"])
def test_ground_truth_is_a_perfect_detector(tree, tmp_path, mode):
    dataset = make(tree, mode=mode)
    results, _ = evaluate(dataset, perfect(dataset), str(tmp_path), iou_types=("bbox", "segm"))
    assert results.results["bbox"]["AP"] == pytest.approx(1) and results.results["segm"]["AP"] == pytest.approx(1)
    entries = json.loads((tmp_path / "segm.json").read_text())
    assert {entry["image_id"] for entry in entries} == {"aachen_000000_000019", "bremen_000000_000019"}
    assert json.loads((tmp_path / "coco_results.json").read_text())["annotations"].endswith("gtFine")


class Squares(AbstractDataset):
    """Custom dataset with one square per image; its size grows with the index."""

    CLASSES = ("__background__", "small", "big")

    def __init__(self):
        self.initMaps()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return Image.new("RGB", (50, 40)), self.get_groundtruth(index), index

    def get_img_info(self, index):
        return {"width": 50, "height": 40}

    def get_groundtruth(self, index):
        target = BoxList([[1.0, 2, 10 + index, 11 + index]], (50, 40))
        target.add_field("labels", torch.tensor([1 + index // 2]))
        return target


def test_custom_dataset_gets_coco_evaluation(tmp_path):
    dataset = Squares()
    assert dataset.name_to_id == {"__background__": 0, "small": 1, "big": 2} and dataset.id_to_name[2] == "big"
    predictions = perfect(dataset)
    results, _ = evaluate(dataset, predictions, str(tmp_path))
    assert results.results["bbox"]["AP"] == pytest.approx(1)
    assert [entry["image_id"] for entry in json.loads((tmp_path / "bbox.json").read_text())] == [0, 1, 2, 3]
    predictions[3].bbox += 1000
    results, _ = evaluate(dataset, predictions, None)
    assert results.results["bbox"]["AP50"] == pytest.approx(0.75, abs=0.01)


def test_proposals_on_a_custom_dataset_have_a_recall(tmp_path):
    proposals = perfect(Squares())
    for boxes in proposals:
        boxes.add_field("objectness", torch.ones(len(boxes)))
    results, _ = evaluate(Squares(), proposals, str(tmp_path), box_only=True)
    figures = json.loads((tmp_path / "box_proposals.json").read_text())["results"]["box_proposal"]
    assert figures == results.results["box_proposal"] and figures["AR@100"] == pytest.approx(1)


@pytest.mark.parametrize("classes", [(), ("small", "big"), ("__background__", "small", "small")])
def test_classes_without_background_or_with_repeated_names_are_refused(classes):
    with pytest.raises(ValueError, match="'__background__' and then every class once"):
        type("Mine", (Squares,), {"CLASSES": classes})()


@pytest.mark.parametrize("method", ["__len__", "get_img_info", "get_groundtruth", "__getitem__"])
def test_missing_method_is_named(method):
    with pytest.raises(NotImplementedError, match=f"Mine has no {method}"):
        getattr(type("Mine", (AbstractDataset,), {})(), method)(*([] if method == "__len__" else [0]))


def test_sixteen_bit_masks_keep_their_ids(tree):
    path = tree / "gtFine/train/bremen/bremen_000000_000019_gtFine_instanceIds.png"
    with Image.open(path) as image:
        assert np.asarray(image).max() == 33001
