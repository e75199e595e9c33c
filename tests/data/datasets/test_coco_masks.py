from __future__ import annotations

import json
import multiprocessing
import os

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.data.transforms import Compose, RandomHorizontalFlip, Resize
from maskrcnn_benchmark.structures.keypoint import Keypoints, PersonKeypoints
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

TRIANGLE = [5.0, 6, 15, 6, 5, 26]
PERSON = [8.0, 9, 2] * 10 + [0, 0, 0] * 7


def test_a_file_without_segmentations_gives_no_masks(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [5, 6, 10, 20], segmentation=[])
    target = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)[0][1]
    assert target.fields() == ["labels"]


def test_masks_stay_aligned_with_their_boxes(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [20, 6, 0, 20], segmentation=[[20.0, 6, 20, 9, 20, 26]])  # no area: dropped
    coco_folder.add_box(1, [5, 6, 10, 20], segmentation=[TRIANGLE])
    coco_folder.add_box(1, [0, 0, 30, 30], iscrowd=1, segmentation={"counts": [0, 2400], "size": [40, 60]})
    coco_folder.add_box(1, [30, 5, 4, 4], segmentation=[[1, 2, 3]])
    coco_folder.add_image(2)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    target = dataset[0][1]
    masks = target.get_field("masks")
    assert isinstance(masks, SegmentationMask) and len(masks) == len(target) == 2 and masks.size == (60, 40)
    assert masks.instances.polygons[0].polygons[0].tolist() == TRIANGLE
    assert masks.instances.polygons[1].polygons[0].tolist() == [30, 5, 34, 5, 34, 9, 30, 9]
    assert "1 object without a usable segmentation, with its box as mask (annotation ids 4)" in str(dataset.report)
    empty = dataset[1][1]
    assert len(empty) == len(empty.get_field("masks")) == 0


def test_masks_and_keypoints_follow_the_transforms(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [5, 6, 10, 20], segmentation=[TRIANGLE], keypoints=PERSON)
    transforms = Compose([Resize(80, None), RandomHorizontalFlip(1.0)])
    target = COCODataset(**coco_folder.write(), remove_images_without_annotations=True, transforms=transforms)[0][1]
    x1, y1, x2, y2 = target.bbox[0].tolist()
    masks, keypoints = target.get_field("masks"), target.get_field("keypoints")
    assert target.size == masks.size == keypoints.size == (120, 80)
    rows, columns = masks.get_mask_tensor().nonzero().unbind(1)
    assert x1 - 2 <= columns.min() and columns.max() <= x2 + 2 and y1 - 2 <= rows.min() and rows.max() <= y2 + 2
    assert keypoints.keypoints[0, 0].tolist() == [120 - 16 - 1, 18, 2]


def test_an_rle_mask_of_another_size_is_counted(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [5, 6, 10, 20], segmentation={"counts": [0, 600], "size": [30, 20]})
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert dataset.report.count("RLE masks of another size than their image, cut or padded") == 1
    mask = dataset[0][1].get_field("masks").get_mask_tensor()
    assert mask.shape == (40, 60) and mask.sum() == 600 and mask[:30, :20].all()


def test_seventeen_keypoints_are_person_keypoints_and_broken_ones_are_invisible(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [5, 6, 10, 20], keypoints=PERSON)
    coco_folder.add_box(1, [15, 6, 10, 20])
    coco_folder.add_box(1, [25, 6, 10, 20], keypoints=PERSON[:-1])
    coco_folder.add_box(1, [30, 6, 10, 20], keypoints=[*PERSON[:-1], "visible"])
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    keypoints = dataset[0][1].get_field("keypoints")
    assert isinstance(keypoints, PersonKeypoints)
    assert torch.equal(keypoints.keypoints[0], torch.tensor(PERSON).view(17, 3))
    assert (keypoints.keypoints[1:] == 0).all()
    what = "broken keypoints (not 17 times three finite numbers), taken for not visible"
    assert f"2 {what} (annotation ids 3, 4)" in str(dataset.report)


def test_flip_pairs_of_other_objects_come_from_keypoint_names(coco_folder):
    coco_folder.categories[0]["keypoints"] = ["tail", "left_wing", "right_wing"]
    coco_folder.add_image(1)
    coco_folder.add_box(1, [5, 6, 10, 20], keypoints=[5, 6, 2, 7, 8, 2, 9, 10, 2])
    keypoints = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)[0][1].get_field("keypoints")
    assert type(keypoints) is Keypoints
    assert keypoints.transpose(0).keypoints[0, :, 0].tolist() == [54, 50, 52]


def worker_growth(dataset, epochs, sender):
    """Send the number of megabytes that a forked process stops sharing while it reads the dataset."""

    def private():
        with open("/proc/self/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))

    for index in range(20):  # buffers of a single item are not growth
        dataset.get_groundtruth(index)
    before = private()
    for _ in range(epochs):
        for index in range(len(dataset)):
            dataset.get_groundtruth(index)
    sender.send((private() - before) / 1024)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="the system does not report shared memory")
def test_the_memory_of_a_loader_worker_does_not_grow(coco_folder):
    rng = np.random.default_rng(0)
    path = coco_folder.add_image(0)
    coco_folder.images = [{**coco_folder.images[0], "id": k, "file_name": path.name} for k in range(500)]
    for k in range(2000):
        polygon = rng.integers(0, 40, 200).tolist()
        coco_folder.add_box(k % 500, [5, 6, 10, 20], segmentation=[polygon], keypoints=PERSON)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    receiver, sender = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=worker_growth, args=(dataset, 4, sender))
    process.start()
    process.join()
    # As Python objects these polygons and keypoints would take about 15 MB, copied on first use.
    assert receiver.recv() < 3


# pycocotools' arrays do not support NumPy 2's copy argument yet
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_real_masks_agree_with_pycocotools(shared_data):
    folder = shared_data("coco_tiny")
    dataset = COCODataset(
        folder / "annotations/instances_val2017.json", folder / "val2017", remove_images_without_annotations=False
    )
    compared = 0
    for index in range(0, len(dataset), 4):
        target = dataset.get_groundtruth(index)
        masks = target.get_field("masks")
        assert len(masks) == len(target)
        annotations = dataset.coco.loadAnns(dataset.coco.getAnnIds(dataset.ids[index], iscrowd=False))
        usable = [a for a in annotations if min(a["bbox"][2:]) > 1]
        assert len(usable) == len(target)
        for mask, annotation in zip(masks, usable, strict=True):
            reference = dataset.coco.annToMask(annotation)
            assert (mask.get_mask_tensor().numpy() == reference).all()
            compared += 1
    assert compared > 100


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_real_run_lengths_agree_with_pycocotools(shared_data, tmp_path):
    folder = shared_data("panopticapi_sample")
    content = json.loads((folder / "panoptic_coco_detection_format.json").read_text())
    annotations = content if isinstance(content, list) else content["annotations"]
    images = json.loads((folder / "images_info_examples.json").read_text())["images"]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
        annotation.pop("iscrowd", None)
    categories = json.loads((folder / "panoptic_coco_categories.json").read_text())
    ann_file = tmp_path / "instances.json"
    ann_file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    dataset = COCODataset(ann_file, folder / "input_images", remove_images_without_annotations=True)
    for index in range(len(dataset)):
        masks = dataset.get_groundtruth(index).get_field("masks")
        assert masks.mode == "mask"
        for mask, annotation in zip(masks, dataset.coco.imgToAnns[dataset.ids[index]], strict=True):
            assert (mask.get_mask_tensor().numpy() == dataset.coco.annToMask(annotation)).all()
