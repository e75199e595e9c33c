import logging
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading


def boxes_of(dataset, index=0):
    return dataset[index][1].bbox.tolist()


def test_item_is_image_boxes_and_index(coco_folder):
    coco_folder.add_image(7, size=(60, 40))
    coco_folder.add_box(7, [5, 6, 10, 20], category_id=2)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    image, target, index = dataset[0]
    assert image.mode == "RGB" and image.size == (60, 40) and index == 0
    assert target.size == (60, 40) and target.mode == "xyxy"
    assert target.bbox.tolist() == [[5, 6, 14, 25]]  # inclusive corners: x2 = x + w - 1
    labels = target.get_field("labels")
    assert labels.tolist() == [2] and labels.dtype == torch.int64


def test_images_are_sorted_by_id_and_return_their_info(coco_folder):
    for image_id in (30, 4, 12):
        coco_folder.add_image(image_id, size=(60 + image_id, 40))
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    assert dataset.ids == [4, 12, 30] and dataset.id_to_img_map == {0: 4, 1: 12, 2: 30}
    assert [dataset.image_id(i) for i in range(len(dataset))] == [4, 12, 30]
    assert dataset.get_img_info(2) == {"id": 30, "file_name": "30.jpg", "width": 90, "height": 40}
    assert [target.size for _, target, _ in dataset] == [(64, 40), (72, 40), (90, 40)]


def test_labels_are_categories_counted_from_one_in_file_order(coco_folder):
    coco_folder.categories = [{"id": 90, "name": "zebra"}, {"id": 3, "name": "ant"}]
    coco_folder.add_image(1)
    coco_folder.add_box(1, [0, 0, 9, 9], category_id=3)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert dataset.class_names == ["zebra", "ant"] and dataset.categories == {90: "zebra", 3: "ant"}
    assert dataset.json_category_id_to_contiguous_id == {90: 1, 3: 2}
    assert dataset.contiguous_category_id_to_json_id == {1: 90, 2: 3}
    assert dataset[0][1].get_field("labels").tolist() == [2]
    assert list(dataset.json_category_id_to_contiguous_id) == dataset.coco.getCatIds()


def test_images_with_only_crowd_regions_are_not_trained_on(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [0, 0, 9, 9], iscrowd=1)
    args = coco_folder.write()
    with pytest.raises(ValueError, match="1 crowd region.*nothing is left to train on"):
        COCODataset(**args, remove_images_without_annotations=True)
    assert len(COCODataset(**args, remove_images_without_annotations=False)) == 1


def test_images_without_annotations_are_dropped_in_training_only(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_image(2)
    coco_folder.add_box(2, [0, 0, 9, 9])
    coco_folder.add_image(3)
    coco_folder.add_box(3, [0, 0, 1, 9])  # one pixel wide
    args = coco_folder.write()
    training = COCODataset(**args, remove_images_without_annotations=True)
    assert training.ids == [2] and training.report.count("images without usable annotations") == 2
    test = COCODataset(**args, remove_images_without_annotations=False)
    assert test.ids == [1, 2, 3]
    assert [len(target) for _, target, _ in test] == [0, 1, 0]
    assert test[0][1].bbox.shape == (0, 4) and test[0][1].get_field("labels").dtype == torch.int64


def test_files_of_dropped_images_may_be_missing(coco_folder):
    coco_folder.add_image(1).unlink()
    coco_folder.add_image(2)
    coco_folder.add_box(2, [0, 0, 9, 9])
    assert len(COCODataset(**coco_folder.write(), remove_images_without_annotations=True)) == 1


def test_crowd_is_dropped_but_its_image_is_kept(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [0, 0, 30, 30], iscrowd=1, segmentation={"counts": [0, 4], "size": [40, 60]})
    coco_folder.add_image(2)
    coco_folder.add_box(2, [0, 0, 9, 9])
    coco_folder.add_box(2, [0, 0, 30, 30], iscrowd=1)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert [len(target) for _, target, _ in dataset] == [0, 1]
    assert dataset.report.count("crowd regions") == 2


def test_images_with_few_visible_keypoints_are_dropped(coco_folder):
    for image_id, visible in ((1, 9), (2, 10)):
        coco_folder.add_image(image_id)
        coco_folder.add_box(image_id, [0, 0, 9, 9], keypoints=[1, 1, 2] * visible + [0, 0, 0] * (17 - visible))
    args = coco_folder.write()
    assert COCODataset(**args, remove_images_without_annotations=True).ids == [1, 2]
    dataset = COCODataset(**args, remove_images_without_annotations=True, reading=Reading(min_visible_keypoints=10))
    assert dataset.ids == [2] and "DATASETS.MIN_VISIBLE_KEYPOINTS" in str(dataset.report)


def test_clipping_by_more_than_rounding_is_counted(coco_folder):
    coco_folder.add_image(1, size=(60, 40))
    coco_folder.add_box(1, [50, 30, 10.5, 10.5])
    coco_folder.add_box(1, [-5, 30, 20, 30])
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert boxes_of(dataset) == [[50, 30, 59, 39], [0, 30, 14, 39]]
    assert dataset.report.count("boxes clipped to the image") == 1


def test_size_mismatch_keep_uses_the_images_own_size(coco_folder):
    coco_folder.add_image(1, size=(60, 40), json_size=(120, 80))
    coco_folder.add_box(1, [10, 10, 100, 10])
    keep = ImageSettings(size_mismatch="keep")
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True, images=keep)
    assert dataset[0][1].size == (60, 40) and boxes_of(dataset) == [[10, 10, 59, 19]]
    assert dataset.get_img_info(0)["width"] == 60
    assert "noted: 1 image of another size than the json says, boxes used as they are" in str(dataset.report)


def test_size_may_be_missing_in_the_json(coco_folder):
    coco_folder.add_image(1, size=(60, 40))
    del coco_folder.images[0]["width"]
    coco_folder.images[0]["height"] = None
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    assert dataset.get_img_info(0)["width"] == 60 and dataset.get_img_info(0)["height"] == 40
    assert dataset.report.count("images without a size in the json") == 1


def rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_exif_rotation_is_ignored_when_the_json_has_the_stored_size(coco_folder):
    coco_folder.add_image(1, size=(60, 40), exif=rotated(6))
    coco_folder.add_image(2, size=(60, 40), exif=rotated(3))
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    assert [image.size for image, _, _ in dataset] == [(60, 40), (60, 40)]
    assert dataset.report.count("images with an EXIF rotation, used as stored (DATASETS.EXIF_ROTATION: auto)") == 2


def test_exif_rotation_is_applied_when_the_json_has_the_rotated_size(coco_folder):
    path = coco_folder.add_image(1, size=(60, 40), json_size=(40, 60), exif=rotated(6))
    coco_folder.add_box(1, [0, 50, 30, 10])
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    image, target, _ = dataset[0]
    assert image.size == (40, 60) and target.size == (40, 60) and target.bbox.tolist() == [[0, 50, 29, 59]]
    assert dataset.get_img_info(0)["height"] == 60
    assert np.array_equal(np.asarray(image), np.rot90(np.asarray(Image.open(path)), -1))
    assert dataset.report.count("images rotated as EXIF says, because the json has the rotated size") == 1


def test_truncated_image_is_used_and_counted(coco_folder):
    for image_id, file_name in ((1, "a.jpg"), (2, "b.png"), (3, "whole.jpg")):
        path = coco_folder.add_image(image_id, size=(200, 100), file_name=file_name)
        if image_id < 3:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    assert [image.size for image, _, _ in dataset] == [(200, 100)] * 3
    assert dataset.report.count("truncated images (what is missing is grey)") == 2


def test_bytes_after_the_end_of_a_jpeg_are_not_a_truncation(coco_folder):
    path = coco_folder.add_image(1)
    path.write_bytes(path.read_bytes() + b"written by a camera")
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    assert dataset.report.count("truncated images (what is missing is grey)") == 0


def test_truncated_webp_is_refused_at_the_start(coco_folder):
    path = coco_folder.add_image(1, size=(200, 100), file_name="a.webp")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(OSError, match="1 of 1 images in .* cannot be decoded: a.webp"):
        COCODataset(**coco_folder.write(), remove_images_without_annotations=False)


def test_missing_images_are_an_error_at_the_start_with_names_and_count(coco_folder):
    for image_id in range(1, 10):
        path = coco_folder.add_image(image_id)
        if image_id > 2:
            path.unlink()
    with pytest.raises(FileNotFoundError, match=r"7 of 9 images are missing in .*: 3.jpg, 4.jpg, .*\.\.\."):
        COCODataset(**coco_folder.write(), remove_images_without_annotations=False)


def test_files_that_are_not_images_are_an_error_at_the_start(coco_folder):
    coco_folder.add_image(1).write_bytes(b"")
    coco_folder.add_image(2).write_text("<html>404</html>")
    coco_folder.add_image(3)
    with pytest.raises(OSError, match=r"2 of 3 images in .* cannot be decoded: 1.jpg"):
        COCODataset(**coco_folder.write(), remove_images_without_annotations=False)


def test_missing_folder_and_file_are_named(coco_folder):
    coco_folder.add_image(1)
    args = coco_folder.write()
    with pytest.raises(FileNotFoundError, match="image folder .*elsewhere does not exist"):
        COCODataset(args["ann_file"], str(coco_folder.root / "elsewhere"), False)
    with pytest.raises(FileNotFoundError, match="annotation file .*none.json does not exist"):
        COCODataset(str(coco_folder.root / "none.json"), args["root"], False)


@pytest.mark.parametrize(
    "mode, kind", [("L", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("1", "png"), ("LA", "png")]
)
def test_every_image_mode_is_converted_to_rgb(coco_folder, mode, kind):
    path = coco_folder.add_image(1, file_name=f"1.{kind}")
    Image.open(path).convert(mode).save(path)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    assert dataset[0][0].mode == "RGB" and dataset[0][0].size == (60, 40)
    assert dataset.report.count(f"images of mode {mode} converted to RGB") == 1


def test_sixteen_bit_image_keeps_its_upper_bits(coco_folder):
    path = coco_folder.add_image(1, size=(3, 1), file_name="1.png")
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(path)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    assert np.asarray(dataset[0][0])[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_report_is_logged_once_with_totals(coco_folder, caplog):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [1, 2, 10, 10])
    for _ in range(7):
        coco_folder.add_box(1, [1, 2, 0, 10])
    with caplog.at_level(logging.INFO):
        COCODataset(**coco_folder.write(), remove_images_without_annotations=True, name="pets_train")
    assert [record.getMessage() for record in caplog.records] == [
        "pets_train: 1 image, 1 box, 2 classes; dropped: 7 boxes without area (at most one pixel wide or high) "
        "(annotation ids 2, 3, 4, 5, 6, ...)"
    ]


def test_nothing_left_to_train_on_is_an_error_with_the_reason(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [1, 2, 0, 0])
    with pytest.raises(ValueError, match="1 box without area.*nothing is left to train on"):
        COCODataset(**coco_folder.write(), remove_images_without_annotations=True)


def test_failure_while_loading_names_image_and_id(coco_folder):
    path = coco_folder.add_image(5)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    path.unlink()
    with pytest.raises(RuntimeError, match=r"image .*5.jpg \(image id 5\) failed: FileNotFoundError"):
        dataset[0]


def test_image_replaced_by_one_of_another_size_is_an_error(coco_folder):
    coco_folder.add_image(1, size=(60, 40))
    coco_folder.add_box(1, [10, 10, 45, 10])
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    path = coco_folder.add_image(1, size=(40, 30))
    with pytest.raises(RuntimeError, match=rf"{path} \(image id 1\) failed: .* is 40 x 30 now and was 60 x 40 .*Start"):
        dataset[0]


def test_transforms_receive_the_image_and_its_boxes(coco_folder):
    coco_folder.add_image(1, size=(60, 40))
    coco_folder.add_box(1, [5, 6, 10, 20])
    transforms = lambda image, target: (image.size, target.resize((120, 80)))  # noqa: E731
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True, transforms=transforms)
    image, target, _ = dataset[0]
    assert image == (60, 40) and target.bbox.tolist() == [[10, 12, 28, 50]]


def test_changing_an_items_boxes_does_not_change_the_dataset(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [5, 6, 10, 20])
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    dataset[0][1].bbox.fill_(0)
    dataset[0][1].get_field("labels").fill_(0)
    assert boxes_of(dataset) == [[5, 6, 14, 25]] and dataset[0][1].get_field("labels").tolist() == [1]


def test_pycocotools_object_has_missing_keys_filled_in_and_is_not_pickled(coco_folder, capsys):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [5, 6, 10, 20])
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert dataset.coco.anns[1]["area"] == 200 and dataset.coco.anns[1]["iscrowd"] == 0
    assert capsys.readouterr().out == ""
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy._coco is None and boxes_of(copy) == boxes_of(dataset)


def test_real_coco_annotations_equal_pycocotools(shared_data):
    folder = shared_data("coco_tiny")
    ann_file = folder / "annotations" / "instances_train2017.json"
    dataset = COCODataset(str(ann_file), str(folder / "train2017"), True)
    coco = dataset.coco
    assert len(dataset) == 80 and len(dataset.class_names) == 80
    assert dataset.ids == sorted(coco.imgs)
    for index in range(len(dataset)):
        target = dataset.get_groundtruth(index)
        wanted = [a for a in coco.imgToAnns[dataset.ids[index]] if not a["iscrowd"] and min(a["bbox"][2:]) > 1]
        assert [dataset.contiguous_category_id_to_json_id[k] for k in target.get_field("labels").tolist()] == [
            a["category_id"] for a in wanted
        ]
        expected = torch.tensor([a["bbox"] for a in wanted]).reshape(-1, 4)
        expected[:, 2:] = expected[:, :2] + (expected[:, 2:] - 1)
        # COCO's boxes exceed their images only by rounding
        assert torch.allclose(target.bbox, expected, atol=1.0)


@pytest.mark.parametrize("split, images, boxes", [("train", 205, 2804), ("val", 87, 1137), ("test", 72, 945)])
def test_bccd_is_read_completely(shared_data, split, images, boxes):
    folder = shared_data("bccd")
    dataset = COCODataset(str(folder / "coco" / f"instances_{split}.json"), str(folder / "JPEGImages"), True)
    assert dataset.class_names == ["RBC", "WBC", "Platelets"]
    assert len(dataset) == images and dataset.report.totals["boxes"] == boxes


def test_grey_raccoon_images_are_converted_to_rgb(shared_data):
    folder = shared_data("raccoon")
    dataset = COCODataset(str(folder / "coco" / "instances_train.json"), str(folder / "images"), True)
    test = COCODataset(str(folder / "coco" / "instances_test.json"), str(folder / "images"), False)
    assert (len(dataset), len(test)) == (160, 40)
    assert sum(d.report.count("images of mode L converted to RGB") for d in (dataset, test)) == 3
