"""--fix: a clean copy that reads without findings, and a list of every change."""

import csv
import json
from pathlib import Path

import pytest
from helpers.clinic import block

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.doctor.examine import config_of_file, examine, read_splits
from maskrcnn_benchmark.doctor.fix import write_clean

SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]


@pytest.fixture
def ill(clinic):
    for number in range(1, 6):
        path = clinic.add_image(number, (100, 80))
        clinic.add_box(number, [10, 10, 20, 20], number % 2 + 1, segmentation=SQUARE)
        if number == 4:
            path.write_bytes(b"")
    clinic.add_image(6, (100, 80))  # without objects
    clinic.add_box(1, [10, 10, 20, 20], 2, segmentation=SQUARE)  # 6: a copy of 1
    clinic.add_box(2, [5, 5, 0, 9], segmentation=SQUARE)  # 7
    clinic.add_box(2, [90, 70, 30, 30], segmentation=[[90, 70, 120, 70, 120, 100]])  # 8: clipped
    clinic.add_box(3, [40, 10, 20, 20], iscrowd=1, segmentation=[[40, 10, 60, 10, 60, 30]])  # 9
    clinic.add_box(77, [40, 10, 20, 20], segmentation=SQUARE)  # 10
    return clinic


def cured(cfg, folder):
    splits = read_splits(cfg, False)
    (copy,), changes = write_clean(cfg, splits, str(folder))
    return copy, changes


def test_the_clean_copy_has_no_findings_of_training_and_the_same_objects(ill, tmp_path):
    cfg = config_of_file(ill.write()["ann_file"], None)
    (before,) = read_splits(cfg, False)
    copy, _ = cured(cfg, tmp_path / "out")
    clean = default_cfg.clone()
    clean.DATASETS.TRAIN, clean.DATASETS.TEST = (copy.block,), ()
    (after,) = splits = read_splits(clean, False)
    found = {each.title for each in examine(clean, splits, "clean", False).findings if each.check != "training-warning"}
    assert found <= {"crowd regions", "images without usable annotations"}
    kept = [row for row, number in enumerate(before.table.annotation_ids) if number != 6]
    assert after.table.boxes.tolist() == before.table.boxes[kept].tolist()
    assert after.table.labels.tolist() == before.table.labels[kept].tolist()
    assert after.class_names == before.class_names and after.table.masks is not None


def test_crowd_regions_and_images_without_objects_are_kept(ill, tmp_path):
    copy, _ = cured(config_of_file(ill.write()["ann_file"], None), tmp_path / "out")
    content = json.loads(Path(copy.path).read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 5, 6] and copy.images == 5
    assert sum(annotation["iscrowd"] for annotation in content["annotations"]) == 1
    assert len(content["annotations"]) == copy.annotations == 6


def test_every_change_is_listed_with_the_ids_of_the_source(ill, tmp_path):
    _, changes = cured(config_of_file(ill.write()["ann_file"], None), tmp_path / "out")
    with open(tmp_path / "out" / "changes.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["dataset", "image_id", "annotation_id", "change"] and len(rows) == len(changes)
    by_ids = {(row[1], row[2]): row[3] for row in rows}
    for ids, part in (
        (("4", ""), "cannot be decoded: left out"),
        (("1", "6"), "box of another, under another id: left out"),
        (("2", "7"), "boxes without area"),
        (("2", "8"), "boxes clipped to the image: changed"),
        (("77", "10"), "unknown images"),
    ):
        assert part in by_ids[ids]
    assert len(by_ids) == 5


def test_boxes_that_may_be_of_another_image_size_are_not_written(clinic, tmp_path):
    clinic.add_image(1, (60, 40), json_size=(30, 20))
    clinic.add_box(1, [5, 6, 10, 10])
    cfg = config_of_file(clinic.write()["ann_file"], None)
    copy, changes = cured(cfg, tmp_path / "out")
    assert copy.path is None and "DATASETS.SIZE_MISMATCH: scale" in copy.remark and changes == []
    cfg.DATASETS.SIZE_MISMATCH = "scale"
    copy, _ = cured(cfg, tmp_path / "out")
    assert json.loads(Path(copy.path).read_text())["annotations"][0]["bbox"] == [10, 12, 20, 20]


def test_keypoints_are_kept_whatever_the_model(clinic, tmp_path):
    clinic.add_image(1)
    clinic.add_box(1, [5, 6, 20, 20], keypoints=[7, 8, 2] * 17)
    cfg = default_cfg.clone()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (block(clinic, "bees"),), ()
    (copy,), _ = write_clean(cfg, read_splits(cfg), str(tmp_path / "out"))
    (annotation,) = json.loads(Path(copy.path).read_text())["annotations"]
    assert annotation["keypoints"] == [7, 8, 2] * 17 and not cfg.MODEL.KEYPOINT_ON


def test_a_dataset_that_cannot_be_read_is_named_and_the_others_are_written(two_splits, tmp_path):
    train, test, _ = two_splits
    test.add_image(1)
    test.add_box(1, [5, 6, 20, 20])
    cfg = config_of_file(test.write()["ann_file"], None)
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    cfg.DATASETS.TRAIN = ({**cfg.DATASETS.TEST[0], "NAME": "gone", "ANNOTATIONS": str(tmp_path / "gone.json")},)
    copies, changes = write_clean(cfg, read_splits(cfg, False), str(tmp_path / "out"))
    assert copies[0].path is None and "gone.json" in copies[0].remark
    assert copies[1].annotations == 1 and changes == []
