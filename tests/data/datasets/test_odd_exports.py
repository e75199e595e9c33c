"""Annotations as written by Roboflow, CVAT, Label Studio and others are read, counted or refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.structures.rle import encode_window, parse_counts

BOX = [5.0, 6.0, 20.0, 20.0]


def dataset_of(folder, is_train=True, **reading) -> COCODataset:
    return COCODataset(**folder.write(), remove_images_without_annotations=is_train, reading=Reading(**reading))


@pytest.fixture
def one_box(coco_folder):
    """Folder with one image and one annotation, for tests to modify."""
    coco_folder.add_image(1, size=(60, 40))
    coco_folder.add_box(1, list(BOX), area=400, iscrowd=0)
    return coco_folder


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "0", "false", "False", "", "no", "null", "0.0"])
def test_flags_read_as_no_crowd(one_box, value):
    one_box.annotations[0]["iscrowd"] = value
    dataset = dataset_of(one_box)
    assert len(dataset[0][1]) == 1
    assert dataset.report.count("iscrowd written as text") == isinstance(value, str)
    assert dataset.coco.anns[1]["iscrowd"] == 0


@pytest.mark.parametrize("value", [1, True, 1.0, "1", "true", "YES", "1.0"])
def test_flags_read_as_crowd(one_box, value):
    one_box.annotations[0]["iscrowd"] = value
    dataset = dataset_of(one_box, is_train=False)
    assert len(dataset[0][1]) == 0 and dataset.report.count("crowd regions") == 1
    assert dataset.coco.anns[1]["iscrowd"] == 1


@pytest.mark.parametrize("value", ["maybe", [], {}, float("nan"), "nan"])
def test_a_flag_that_cannot_be_read_is_an_error(one_box, value):
    one_box.annotations[0]["iscrowd"] = value
    with pytest.raises(ValueError, match=r"boxes\.json: annotation id 1 has iscrowd .*; write 0 or 1"):
        dataset_of(one_box)


@pytest.mark.parametrize("bbox", [["5", "6.0", 20, "2e1"], "[5, 6, 20, 20]", "5 6 20 20"])
def test_boxes_of_text_are_read_and_counted(one_box, bbox):
    one_box.annotations[0]["bbox"] = bbox
    dataset = dataset_of(one_box)
    assert dataset[0][1].bbox.tolist() == [[5, 6, 24, 25]]
    assert dataset.report.count("boxes written as text") == 1


@pytest.mark.parametrize("images, annotations", [(1, "1"), ("1", 1), (1, 1.0), ("1", "1.0"), (1.0, "1")])
def test_image_ids_of_another_type_match_and_are_counted(one_box, images, annotations):
    one_box.images[0]["id"], one_box.annotations[0]["image_id"] = images, annotations
    dataset = dataset_of(one_box)
    assert len(dataset[0][1]) == 1 and dataset.ids == [images]
    if isinstance(images, str) != isinstance(annotations, str):
        line = str(dataset.report)
        assert "1 image id that is" in line and "taken as the same" in line and "text" in line


def test_ids_of_another_type_do_not_match_where_two_would(one_box):
    one_box.add_image("1", file_name="other.jpg")
    one_box.annotations[0]["image_id"] = 1.0
    assert dataset_of(one_box).ids == [1]
    one_box.annotations[0]["image_id"] = "1.0"
    with pytest.raises(ValueError, match="1 annotation of unknown images"):
        dataset_of(one_box)


def test_category_ids_of_another_type_match(one_box):
    one_box.annotations[0]["category_id"] = "2"
    assert dataset_of(one_box)[0][1].get_field("labels").tolist() == [2]
    for category in one_box.categories:
        category["id"] = str(category["id"])
    dataset = dataset_of(one_box)
    assert dataset[0][1].get_field("labels").tolist() == [2] and list(dataset.categories) == [1, 2]


def test_a_category_id_too_large_for_evaluators_is_an_error(one_box):
    one_box.categories[0]["id"] = 2**60
    with pytest.raises(ValueError, match=r"category 'cat' has id 1152921504606846976; wanted .* below 2\^53"):
        dataset_of(one_box)


@pytest.mark.parametrize("ids, side", [((2, 3), "more"), ((0, 1), "less"), (("2", "3"), "more")])
def test_shifted_category_ids_are_an_error_with_both_lists(one_box, ids, side):
    one_box.add_box(1, [9, 9, 9, 9])
    for row, number in zip(one_box.annotations, ids, strict=True):
        row["category_id"] = number
    wanted = rf"use the category ids {ids[0]}, {ids[1]}, 'categories' lists 1 \(cat\), 2 \(dog\): each is one {side}"
    with pytest.raises(ValueError, match=wanted):
        dataset_of(one_box)


def test_unknown_category_ids_are_named_beside_those_listed(one_box):
    one_box.add_box(1, [9, 9, 9, 9], category_id=77)
    assert "of category ids 77; 'categories' lists 1, 2" in str(dataset_of(one_box).report)


def test_the_root_category_of_roboflow_is_not_a_class(one_box):
    one_box.categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    dataset = dataset_of(one_box)
    assert dataset.class_names == ["cat", "dog"] and dataset[0][1].get_field("labels").tolist() == [1]
    assert "names pets; DATASETS.KEEP_PLACEHOLDER_CATEGORIES True keeps them" in str(dataset.report)
    assert dataset_of(one_box, keep_placeholder_categories=True).class_names == ["pets", "cat", "dog"]
    one_box.add_box(1, [1, 1, 9, 9], category_id=0)
    assert dataset_of(one_box).class_names == ["pets", "cat", "dog"]


def test_an_unused_background_is_not_a_class_but_other_unused_categories_are(one_box):
    one_box.categories.insert(0, {"id": 0, "name": "_background_", "supercategory": None})
    assert dataset_of(one_box).class_names == ["cat", "dog"]
    one_box.categories[0]["name"] = "hen"
    assert dataset_of(one_box).class_names == ["hen", "cat", "dog"]


def test_crowd_as_objects_and_the_warning_that_suggests_it(one_box, caplog):
    one_box.annotations[0]["iscrowd"] = 1
    with caplog.at_level(logging.WARNING):
        assert len(dataset_of(one_box, is_train=False)[0][1]) == 0
    assert "1 of 1 crowd regions (iscrowd 1) look like single objects" in caplog.text
    assert "DATASETS.CROWD_AS_OBJECTS" in caplog.text
    dataset = dataset_of(one_box, crowd_as_objects=True)
    assert len(dataset[0][1]) == 1 and dataset.report.count("crowd regions taken for objects") == 1


def test_a_crowd_beside_many_objects_of_its_class_gives_no_warning(one_box, caplog):
    for x in range(6):
        one_box.add_box(1, [x, 3, 9, 9])
    one_box.annotations[0]["iscrowd"] = 1
    with caplog.at_level(logging.WARNING):
        dataset = dataset_of(one_box)
    assert "look like single objects" not in caplog.text and "DATASETS.CROWD_AS_OBJECTS" in str(dataset.report)


def test_keep_empty_images_keeps_images_without_annotations(one_box):
    one_box.add_image(2)
    one_box.add_image(3)
    one_box.add_box(3, [5, 5, -4, 9])
    dataset = dataset_of(one_box)
    assert dataset.ids == [1] and "DATASETS.KEEP_EMPTY_IMAGES" in str(dataset.report)
    kept = dataset_of(one_box, keep_empty_images=True)
    # image 3 has an object with a broken box, so it must not be trained on as an empty image
    assert kept.ids == [1, 2] and kept.report.count("images without objects, trained on") == 1
    assert len(kept[1][1]) == 0


@pytest.mark.parametrize(
    "segmentation", [[[5, 6, 25, 6, 25, 26, 5, 26]], encode_window(np.ones((20, 20)), 5, 6, 40, 60)]
)
@pytest.mark.parametrize("bbox", [None, [], [0, 0, 0, 0]])
def test_a_missing_box_is_taken_from_the_segmentation(one_box, bbox, segmentation):
    one_box.annotations[0].update(bbox=bbox, segmentation=segmentation)
    dataset = dataset_of(one_box)
    assert dataset[0][1].bbox.tolist() == [[5, 6, 24, 25]]
    assert dataset.report.count("missing boxes, taken from the segmentation") == 1


TRIANGLE = [5.0, 6.0, 25.0, 6.0, 5.0, 26.0]
PAIRS = [[5, 6], [25, 6], [5, 26]]


@pytest.mark.parametrize(
    "segmentation",
    [
        [[TRIANGLE]],
        PAIRS,
        [PAIRS],
        [[PAIRS]],
        [{"x": x, "y": y} for x, y in PAIRS],
        [[str(value) for value in TRIANGLE]],
    ],
)
def test_polygons_nested_in_other_ways_are_read_and_counted(one_box, segmentation):
    one_box.annotations[0]["segmentation"] = segmentation
    dataset = dataset_of(one_box)
    (polygon,) = dataset[0][1].get_field("masks").instances.polygons[0].polygons
    assert polygon.tolist() == TRIANGLE
    assert dataset.report.count("polygons of points, in further lists, or with numbers as text") == 1


def test_run_lengths_in_every_spelling(one_box):
    rle = encode_window(np.ones((20, 20)), 5, 6, 40, 60)
    counts = parse_counts(rle["counts"], rle["size"]).tolist()
    for spelling in (rle["counts"], str(rle["counts"].encode()), counts, [str(count) for count in counts]):
        for segmentation in ({"size": [40, 60], "counts": spelling}, [{"size": ["40", "60"], "counts": spelling}]):
            one_box.annotations[0]["segmentation"] = segmentation
            mask = dataset_of(one_box)[0][1].get_field("masks").get_mask_tensor()
            assert mask.sum() == 400 and mask[6:26, 5:25].all()


LOST = "objects left without a polygon, with their box as mask"
EMPTY = "masks without a pixel in the image, replaced by their box"
APART = "masks that do not touch their box, replaced by their box"
FAR = "polygons farther outside the image than it is large (run lengths, or of another image)"
RUNS = "run lengths written as a polygon"


@pytest.mark.parametrize(
    "segmentation, findings",
    [
        ([[206, 20] + [20, 20] * 18 + [0, 1454]], {RUNS: 1, LOST: 1}),  # adds up to 60 x 40 pixels
        ([206, 20, 20, 20, 20, 20, 1500, 3], {FAR: 1, LOST: 1}),
        ([[-600, 0, -590, 0, -590, 10]], {FAR: 1, LOST: 1}),
        ([[-50, 5, -20, 5, -20, 25]], {EMPTY: 1}),
        ([[6, 6, 12, 12, 20, 20]], {EMPTY: 1}),
        ([[6.1, 8, 6.2, 8, 6.2, 20, 6.1, 20]], {EMPTY: 1}),
        ({"size": [40, 60], "counts": [2400]}, {EMPTY: 1}),
        ([[40, 30, 55, 30, 55, 38]], {APART: 1}),
    ],
)
def test_invalid_masks_are_replaced_by_the_box(one_box, segmentation, findings):
    one_box.annotations[0]["segmentation"] = segmentation
    dataset = dataset_of(one_box)
    mask = dataset[0][1].get_field("masks").get_mask_tensor()
    assert mask.sum() == 400 and mask[6:26, 5:25].all()
    counted = {what: dataset.report.count(what) for what in (LOST, EMPTY, APART, FAR, RUNS)}
    assert {what: count for what, count in counted.items() if count} == findings


def test_masks_larger_than_their_box_and_beyond_the_border_are_kept(one_box):
    one_box.annotations[0]["segmentation"] = [[-3, -3, 63, -3, 63, 43, -3, 43]]
    dataset = dataset_of(one_box)
    assert dataset[0][1].get_field("masks").get_mask_tensor().all()
    assert not dataset.report.findings("repaired") and not dataset.report.findings("dropped")


def test_annotations_repeated_under_other_ids_and_shared_files_are_noted(one_box):
    one_box.annotations.append(dict(one_box.annotations[0], id=50))
    one_box.images.append(dict(one_box.images[0], id=9))
    one_box.add_box(9, [1, 1, 9, 9])
    report = dataset_of(one_box).report
    assert report.count("annotations with image, class and box of another, under another id") == 1
    assert report.count("images whose file has another id too (each sees its own annotations only)") == 1


def test_a_file_with_null_for_annotations_can_be_tested_on(one_box):
    one_box.annotations = None
    dataset = dataset_of(one_box, is_train=False)
    assert len(dataset) == 1 and len(dataset[0][1]) == 0
