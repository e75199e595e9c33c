import logging

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.evaluation.ground_truth import ground_truth_of


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def load(folder, **settings):
    return COCODataset(
        **folder.write(), remove_images_without_annotations=False, images=ImageSettings(**settings), name="pets"
    )


def is_upright(dataset, index, path):
    stored = np.asarray(Image.open(path)).astype(int)
    image = np.asarray(dataset[index][0]).astype(int)
    return image.shape != stored.shape or np.abs(image - stored).mean() > 10


@pytest.mark.parametrize("setting, turned", [("stored", False), ("upright", True), ("auto", False)])
def test_half_turns_follow_the_setting(coco_folder, setting, turned):
    path = coco_folder.add_image(1, exif=exif(3))
    dataset = load(coco_folder, exif_rotation=setting)
    assert is_upright(dataset, 0, path) == turned
    assert f"DATASETS.EXIF_ROTATION: {setting}" in str(dataset.report)


def test_auto_handles_undecidable_images_like_the_others(coco_folder):
    paths = [coco_folder.add_image(1, size=(60, 40), json_size=(40, 60), exif=exif(6))]
    paths.append(coco_folder.add_image(2, size=(50, 50), exif=exif(8)))
    paths.append(coco_folder.add_image(3, exif=exif(3)))
    paths.append(coco_folder.add_image(4, size=(60, 40), exif=exif(6)))
    del coco_folder.images[3]["width"]
    dataset = load(coco_folder)
    assert all(is_upright(dataset, i, path) for i, path in enumerate(paths))
    assert dataset.get_img_info(3)["width"] == 40
    coco_folder.add_image(5, size=(60, 40), exif=exif(6))  # annotated as stored, so the others are undecided
    dataset = load(coco_folder)
    assert [is_upright(dataset, i, path) for i, path in enumerate(paths)] == [True, False, False, False]


def test_boxes_that_stick_out_decide_in_auto_and_give_a_warning(coco_folder, caplog):
    path = coco_folder.add_image(1, size=(60, 40), exif=exif(6))
    coco_folder.images[0].pop("width"), coco_folder.images[0].pop("height")
    coco_folder.add_box(1, [5, 30, 20, 28])
    assert is_upright(load(coco_folder), 0, path)
    assert "boxes stick out as stored and not upright" in caplog.text
    caplog.clear()
    assert not is_upright(load(coco_folder, exif_rotation="stored"), 0, path)
    assert "boxes stick out that way and not upright. DATASETS.EXIF_ROTATION: upright" in caplog.text


def test_a_single_factor_is_an_error_until_it_is_allowed(coco_folder):
    coco_folder.add_image(1, size=(30, 20), json_size=(60, 40))
    coco_folder.add_image(2, size=(25, 21), json_size=(51, 41))
    coco_folder.add_box(1, [10, 10, 20, 10], segmentation=[[10, 10, 30, 10, 30, 20, 10, 20]], keypoints=[12, 14, 2])
    rle = {"size": [40, 60], "counts": [40 * 10, 40 * 20, 40 * 30]}
    coco_folder.add_box(1, [10, 0, 20, 40], segmentation=rle)
    coco_folder.add_box(2, [0, 0, 51, 41])
    with pytest.raises(ValueError, match=r"2 of 2 images .*1.jpg 30 x 20, annotated 60 x 40.*SIZE_MISMATCH: scale "):
        load(coco_folder)
    dataset = load(coco_folder, size_mismatch="scale")
    target = dataset.get_groundtruth(0)
    assert target.bbox.tolist() == [[5, 5, 14, 9], [5, 0, 14, 19]]
    assert target.get_field("keypoints").keypoints[0, 0].tolist() == [6, 7, 2]
    masks = target.get_field("masks").get_mask_tensor()
    assert masks.shape == (2, 20, 30) and masks[1].sum() == 200 and masks[1][:, 5:15].all()
    assert dataset.get_groundtruth(1).bbox.tolist() == [[0, 0, 24, 20]]
    truth = ground_truth_of(dataset)
    assert truth["annotations"][0]["bbox"] == [5, 5, 10, 5] and truth["images"][0]["width"] == 30


def test_different_factors_are_refused_or_applied_per_image(coco_folder):
    coco_folder.add_image(1, size=(30, 20), json_size=(60, 40))
    coco_folder.add_image(2, size=(60, 40))
    for image_id in (1, 2):
        coco_folder.add_box(image_id, [10, 10, 20, 10])
    with pytest.raises(ValueError, match="do not agree on one factor.*scale_each"):
        load(coco_folder, size_mismatch="scale")
    dataset = load(coco_folder, size_mismatch="scale_each")
    assert [dataset.get_groundtruth(i).bbox.tolist() for i in range(2)] == [[[5, 5, 14, 9]], [[10, 10, 29, 19]]]
    coco_folder.add_image(3, size=(30, 30), json_size=(60, 40))
    coco_folder.add_box(3, [1, 1, 5, 5])
    with pytest.raises(ValueError, match="Proportions have changed too.*3.jpg"):
        load(coco_folder, size_mismatch="scale_each")


def test_swapped_sizes_are_noted_if_boxes_fit_and_refused_otherwise(coco_folder):
    coco_folder.add_image(1, size=(60, 40), json_size=(40, 60))
    coco_folder.add_box(1, [30, 10, 25, 20])
    assert "1 image with width and height swapped in the json; its boxes fit" in str(load(coco_folder).report)
    coco_folder.add_box(1, [5, 30, 20, 28])
    with pytest.raises(ValueError, match="60 x 40, annotated 40 x 60"):
        load(coco_folder)


def test_a_difference_of_one_pixel_is_rounding(coco_folder):
    coco_folder.add_image(1, size=(60, 40), json_size=(61, 40))
    coco_folder.add_box(1, [10, 10, 20, 10])
    assert load(coco_folder).get_groundtruth(0).bbox.tolist() == [[10, 10, 29, 19]]


def test_file_names_of_another_system_are_found_and_counted(coco_folder, caplog):
    coco_folder.add_image(1)
    coco_folder.images[0]["file_name"] = "images\\1.jpg"
    assert load(coco_folder).report.count("image names found without the folders that the json writes before them") == 1
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    coco_folder.images[0]["file_name"] = "train/1.jpg"
    assert load(coco_folder)[0][0].size == (60, 40)
    assert "although the json names another folder" in caplog.text


def test_missing_images_name_the_json_as_a_possible_cause(coco_folder):
    coco_folder.add_image(1)
    other = coco_folder.root / "val" / "7.jpg"
    other.parent.mkdir()
    other.touch()
    coco_folder.images[0]["file_name"] = "7.jpg"
    with pytest.raises(FileNotFoundError, match=r"ANNOTATIONS, .*boxes.json.* another split.* 7.jpg is in .*/val"):
        load(coco_folder)


def test_an_invalid_setting_names_its_key():
    for key, settings in (
        ("DATASETS.EXIF_ROTATION", {"exif_rotation": "no"}),
        ("DATASETS.SIZE_MISMATCH", {"size_mismatch": "yes"}),
        ("INPUT.VALUE_RANGE", {"value_range": (5, 5)}),
    ):
        with pytest.raises(ValueError, match=key):
            ImageSettings(**settings)
