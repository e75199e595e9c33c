from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets import COCODataset, PascalVOCDataset
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings


class VocFolder:
    def __init__(self, root):
        self.root = root
        self.names = []
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)

    def add(self, name, objects=(), size=(60, 40), ending=".jpg", xml_size=None):
        """Write an image and its xml; objects are (class, (xmin, ymin, xmax, ymax), difficult or None)."""
        pixels = np.full((size[1], size[0], 3), 90, dtype=np.uint8)
        Image.fromarray(pixels).save(self.root / "JPEGImages" / f"{name}{ending}")
        width, height = xml_size or size
        text = f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        for label, box, difficult in objects:
            hard = "" if difficult is None else f"<difficult>{difficult}</difficult>"
            corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False))
            part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
            text += f"<object><name>{label}</name>{hard}<bndbox>{corners}</bndbox>{part}</object>"
        (self.root / "Annotations" / f"{name}.xml").write_text(f"{text}</annotation>")
        self.names.append(name)

    def split(self, name="train", lines=None):
        text = "".join(f"{line}\n" for line in (self.names if lines is None else lines))
        (self.root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)
        return self.root


@pytest.fixture
def voc_folder(tmp_path):
    return VocFolder(tmp_path / "VOC2007")


def test_boxes_are_the_files_minus_one_and_labels_are_alphabetical(voc_folder):
    voc_folder.add("000007", [("car", (11, 6, 30, 25), 0), ("aeroplane", (1, 1, 60, 40), None)])
    dataset = PascalVOCDataset(voc_folder.split(), "train")
    image, target, index = dataset[0]
    assert image.size == target.size == (60, 40) and index == 0
    assert target.bbox.tolist() == [[10, 5, 29, 24], [0, 0, 59, 39]]
    assert target.get_field("labels").tolist() == [7, 1] and target.get_field("labels").dtype == torch.int64
    assert target.get_field("difficult").tolist() == [0, 0]
    assert dataset.map_class_id_to_class_name(7) == "car" and dataset.map_class_id_to_class_name(0) == "__background__ "
    assert len(dataset.class_names) == 20 and dataset.class_names[-1] == "tvmonitor" and len(dataset.categories) == 21
    assert dataset.name == "VOC2007_train" and dataset.image_id(0) == "000007"
    assert dataset.get_img_info(0)["width"] == 60


def test_difficult_objects_are_kept_only_with_use_difficult(voc_folder):
    voc_folder.add("1", [("car", (11, 6, 30, 25), 1), ("dog", (11, 6, 30, 25), 0)])
    without = PascalVOCDataset(voc_folder.split(), "train")
    assert without[0][1].get_field("labels").tolist() == [12]
    assert without.report.count("difficult objects") == 1
    both = PascalVOCDataset(voc_folder.root, "train", use_difficult=True)
    assert both[0][1].get_field("difficult").tolist() == [1, 0]


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ((30, 6, 11, 25), "inverted boxes"),
        ((30, 6, 30, 25), "boxes without area (at most one pixel wide or high)"),
        ((11, 6, 30), "boxes that are missing, not four numbers, or not finite"),
        ((11, 6, 30, "nan"), "boxes that are missing, not four numbers, or not finite"),
        ((11, 6, 30, "high"), "boxes that are missing, not four numbers, or not finite"),
        ((111, 6, 130, 25), "boxes outside the image"),
    ],
)
def test_broken_box_is_dropped_and_counted(voc_folder, box, what):
    voc_folder.add("1", [("dog", (11.5, "6.5", 30.25, 25), 0), ("car", box, 0)])
    dataset = PascalVOCDataset(voc_folder.split(), "train")
    assert dataset[0][1].bbox.tolist() == [[10.5, 5.5, 29.25, 24]]
    assert dataset.report.count(what) == 1 and "1#2" in str(dataset.report)


def test_images_without_objects_are_dropped_only_on_request(voc_folder):
    voc_folder.add("1")
    voc_folder.add("2", [("dog", (11, 6, 30, 25), 0)])
    assert [len(target) for _, target, _ in PascalVOCDataset(voc_folder.split(), "train")] == [0, 1]
    trained = PascalVOCDataset(voc_folder.root, "train", remove_images_without_annotations=True)
    assert trained.ids == ["2"]


def test_classes_can_come_from_the_data_of_all_splits(voc_folder):
    voc_folder.add("1", [("zebra", (11, 6, 30, 25), 0)])
    voc_folder.add("2", [("ant", (11, 6, 30, 25), 0)])
    dataset = PascalVOCDataset(voc_folder.split(lines=["1"]), "train", class_names="from the data")
    assert dataset.class_names == ["ant", "zebra"] and dataset[0][1].get_field("labels").tolist() == [2]
    given = PascalVOCDataset(voc_folder.root, "train", class_names=["ant"])
    assert len(given[0][1]) == 0 and given.report.count("objects of other classes than ant") == 1


def test_split_files_may_have_presence_flags_endings_and_repetitions(voc_folder):
    for name in ("a b", "c", "d"):
        voc_folder.add(name, ending=".png")
    voc_folder.add("e 1")
    lines = ["c  1", "a b -1", "d.png", "e 1", "c  1"]
    dataset = PascalVOCDataset(voc_folder.split(lines=lines), "train")
    assert dataset.ids == ["c", "a b", "d", "e 1"]
    assert dataset.path(0).endswith("c.png")


def test_a_wrong_size_in_the_xml_is_refused_or_ignored(voc_folder):
    voc_folder.add("1", [("dog", (11, 6, 50, 25), 0)], xml_size=(30, 20))
    folder = voc_folder.split()
    with pytest.raises(ValueError, match="another size than the xml says.*SIZE_MISMATCH: keep"):
        PascalVOCDataset(folder, "train")
    dataset = PascalVOCDataset(folder, "train", images=ImageSettings(size_mismatch="keep"))
    assert dataset[0][1].bbox.tolist() == [[10, 5, 49, 24]]


@pytest.mark.parametrize(
    ("first_pixel", "expected"), [(1, [[0, 0, 29, 24], [10, 5, 29, 24]]), (0, [[0, 0, 29, 24], [11, 6, 29, 24]])]
)
def test_pixels_may_count_from_zero(voc_folder, first_pixel, expected):
    voc_folder.add("1", [("car", (0, 0, 30.0, 25), 0), ("car", (11, 6, 30, 25), 0)])
    dataset = PascalVOCDataset(voc_folder.split(), "train", first_pixel=first_pixel)
    assert dataset.get_groundtruth(0).bbox.tolist() == expected
    assert dataset.report.count("boxes that begin before pixel 1") == first_pixel
    assert ("FIRST_PIXEL: 0" in str(dataset.report)) == (first_pixel == 1)
    with pytest.raises(ValueError, match="is 0 or 1, got 2"):
        PascalVOCDataset(voc_folder.root, "train", first_pixel=2)


@pytest.mark.parametrize("value", [0, "0", [0, 1], "x"])
def test_first_pixel_in_a_block(voc_folder, value):
    voc_folder.add("1", [("car", (11, 6, 30, 25), 0)])
    folders = {"IMAGES": str(voc_folder.root / "JPEGImages"), "ANNOTATIONS": str(voc_folder.root / "Annotations")}
    block = {"FORMAT": "voc", **folders, "FIRST_PIXEL": value}
    if value in (0, "0"):
        assert build_dataset([block], None)[0].get_groundtruth(0).bbox.tolist() == [[11, 6, 29, 24]]
    else:
        with pytest.raises(ValueError, match="FIRST_PIXEL.* should be .*whole number"):
            build_dataset([block], None)


FIRST = """<annotation><folder>x</folder><filename>{filename}</filename><path>{path}</path>
<object><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>
<part><name>foot</name></part><bndbox><ymax>25.4</ymax><xmax>30.6</xmax><ymin>6.2</ymin><xmin> 11.5 </xmin></bndbox>
<name> sea lion </name></object></annotation>"""


def test_float_corners_parts_spaces_and_no_size(voc_folder):
    voc_folder.add("my seal 2")
    (voc_folder.root / "Annotations" / "my seal 2.xml").write_text(FIRST.format(filename="", path=""))
    dataset = PascalVOCDataset(voc_folder.split(), "train", class_names="from the data")
    target = dataset.get_groundtruth(0)
    assert dataset.class_names == ["sea lion"] and target.get_field("difficult").tolist() == [0]
    assert target.bbox.tolist()[0] == pytest.approx([10.5, 5.2, 29.6, 24.4], abs=1e-5)
    assert dataset.report.count("images without a size in the xml") == 1


@pytest.mark.parametrize(
    ("filename", "path"),
    [
        ("photo.png", ""),
        ("C:\\pictures\\photo.png", ""),
        ("/home/me/photo.png", ""),
        ("photo", ""),
        ("", "a/photo.png"),
    ],
)
def test_the_filename_finds_an_image_of_another_name(voc_folder, filename, path):
    voc_folder.add("photo", ending=".png")
    (voc_folder.root / "Annotations" / "photo.xml").rename(voc_folder.root / "Annotations" / "17.xml")
    (voc_folder.root / "Annotations" / "17.xml").write_text(FIRST.format(filename=filename, path=path))
    dataset = PascalVOCDataset(voc_folder.split(lines=["17"]), "train", class_names="from the data")
    assert dataset.ids == ["17"] and dataset.path(0).endswith("photo.png")
    assert dataset.report.count("images found by the <filename> of their xml") == 1


def test_files_may_lie_in_folders(voc_folder):
    voc_folder.add("1", [("car", (11, 6, 30, 25), 0)], ending=".png")
    for folder, ending in (("Annotations", "xml"), ("JPEGImages", "png")):
        (voc_folder.root / folder / "day").mkdir()
        (voc_folder.root / folder / f"1.{ending}").rename(voc_folder.root / folder / "day" / f"1.{ending}")
    folders = {"image_dir": voc_folder.root / "JPEGImages", "annotation_dir": voc_folder.root / "Annotations"}
    dataset = PascalVOCDataset(**folders, class_names="from the data")
    assert dataset.ids == ["day/1"] and dataset.class_names == ["car"] and len(dataset.get_groundtruth(0)) == 1
    assert PascalVOCDataset(voc_folder.split(lines=["day/1"]), "train").ids == ["day/1"]


def test_missing_files_are_named(voc_folder):
    voc_folder.add("1")
    (voc_folder.root / "Annotations" / "1.xml").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 1 annotation files are missing in .*: 1.xml"):
        PascalVOCDataset(voc_folder.split(), "train")
    with pytest.raises(FileNotFoundError, match="val.txt"):
        PascalVOCDataset(voc_folder.root, "val")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        PascalVOCDataset(voc_folder.root / "nowhere", "val")
    with pytest.raises(ValueError, match="names no image"):
        PascalVOCDataset(voc_folder.split(lines=[]), "train")
    voc_folder.add("2")
    (voc_folder.root / "JPEGImages" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="2.jpg"):
        PascalVOCDataset(voc_folder.split(lines=["2"]), "train")
    (voc_folder.root / "Annotations" / "2.xml").write_text("<annotation><object>")
    with pytest.raises(ValueError, match="2.xml is not XML"):
        PascalVOCDataset(voc_folder.root, "train")


def test_a_config_block_needs_no_catalog(voc_folder):
    voc_folder.add("1", [("zebra", (11, 6, 30, 25), 1), ("ant", (1, 1, 9, 9), 0)])
    voc_folder.add("2")
    root = voc_folder.split(lines=["1"])
    block = {"FORMAT": "voc", "IMAGES": str(root / "JPEGImages"), "ANNOTATIONS": str(root / "Annotations")}
    with_split = block | {"SPLIT": str(root / "ImageSets/Main/train.txt")}
    train = build_dataset([with_split], None)[0]
    assert train.name == "train" and train.class_names == ["ant", "zebra"]
    assert train[0][1].get_field("labels").tolist() == [1]  # difficult objects are not trained on
    (test,) = build_dataset([block | {"CLASSES": "zebra, ant"}], None, is_train=False)
    assert test.ids == ["1", "2"] and test[0][1].get_field("labels").tolist() == [1, 2]
    (listed,) = build_dataset([block | {"CLASSES": ["zebra", "ant"], "NAME": "zoo"}], None, is_train=False)
    assert listed.name == "zoo" and listed.class_names == test.class_names
    with pytest.raises(FileNotFoundError, match="SPLIT .*valid.txt"):
        build_dataset([block | {"SPLIT": str(root / "valid.txt")}], None)


def test_catalog_names_build_datasets(voc_folder, tmp_path):
    voc_folder.add("1", [("car", (11, 6, 30, 25), 1), ("dog", (11, 6, 30, 25), 0)])
    voc_folder.split("val")
    (tmp_path / "data" / "voc").mkdir(parents=True)
    voc_folder.root.rename(tmp_path / "data" / "voc" / "VOC2007")
    (test,) = build_dataset(["voc_2007_val"], None, DatasetCatalog, is_train=False, root=str(tmp_path / "data"))
    assert isinstance(test, PascalVOCDataset) and len(test[0][1]) == 2 and test.name == "voc_2007_val"


def same_ground_truth(voc, coco):
    """Compare by image file. Boxes in the json start one pixel further right and down than those of the xml minus 1."""
    by_file = {coco.get_img_info(i)["file_name"]: i for i in range(len(coco))}
    assert len(voc) == len(coco) and sorted(voc.class_names) == sorted(coco.class_names)
    compared = 0
    for i in range(len(voc)):
        ours = voc.get_groundtruth(i)
        theirs = coco.get_groundtruth(by_file[voc.get_img_info(i)["file_name"]])
        assert ours.size == theirs.size
        shifted = (theirs.bbox - torch.tensor([1.0, 1, 0, 0])).clamp(min=0).tolist()
        named = [voc.class_names[k - 1] for k in ours.get_field("labels")]
        expected = [coco.class_names[k - 1] for k in theirs.get_field("labels")]
        assert sorted(zip(named, ours.bbox.tolist(), strict=True)) == sorted(zip(expected, shifted, strict=True))
        compared += len(ours)
    return compared


@pytest.mark.parametrize(("split", "boxes", "flat"), [("train", 2804, 1), ("val", 1137, 1), ("test", 945, 0)])
def test_blood_cells_are_equal_in_xml_and_json(shared_data, split, boxes, flat):
    folder = shared_data("bccd")
    voc = PascalVOCDataset(folder, split, use_difficult=True, class_names="from the data")
    coco = COCODataset(folder / f"coco/instances_{split}.json", folder / "JPEGImages", False)
    assert same_ground_truth(voc, coco) == boxes
    assert voc.report.count("boxes without area (at most one pixel wide or high)") == flat


@pytest.mark.parametrize(("split", "boxes"), [("train", 173), ("test", 44)])
def test_raccoons_are_equal_in_xml_and_json(shared_data, tmp_path, split, boxes):
    folder = shared_data("raccoon")
    with open(folder / f"{split}_labels.csv") as file:
        names = {row["filename"] for row in csv.DictReader(file)}
    (tmp_path / "split.txt").write_text("\n".join(sorted(names)))
    voc = PascalVOCDataset(
        class_names=["raccoon"],
        image_dir=folder / "images",
        annotation_dir=folder / "annotations",
        split_file=tmp_path / "split.txt",
    )
    coco = COCODataset(folder / f"coco/instances_{split}.json", folder / "images", False)
    assert same_ground_truth(voc, coco) == boxes
