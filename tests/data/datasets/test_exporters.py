"""The same few objects, as real exporters write them.

tests/golden/exports was written by datumaro 1.13.12, supervision 0.31.2 and labelme 6.3.1 from one dataset made for
this purpose. It has annotation files only; images are drawn here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets import COCODataset, PascalVOCDataset

GOLDEN = Path(__file__).parents[2] / "golden" / "exports"
SIZES = {"meadow 1": (64, 48), "meadow 2": (40, 60), "nothing": (30, 30), "hive": (50, 40)}
# x, y, width, height by image and class name
OBJECTS = {
    "meadow 1": {"queen": [8.5, 6, 20, 20], "worker bee": [40, 10, 20, 20]},
    "meadow 2": {"worker bee": [0, 0, 10, 12.5]},
    "nothing": {},
    "hive": {"queen": [20, 10, 20, 20]},
}
COCO = {"FORMAT": "coco"}
YOLO = {"FORMAT": "yolo"}
OPEN_IMAGES = {"FORMAT": "openimages", "CLASSES": "annotations/class-descriptions.csv"}
VOC = {"FORMAT": "voc", "IMAGES": "JPEGImages", "ANNOTATIONS": "Annotations", "FIRST_PIXEL": 0}
CLASSES = {"CLASSES": "queen, worker bee"}

# name: (folder of the images, block with paths relative to the export, tolerance in pixels, masks)
EXPORTS = {
    "datumaro_coco_instances": (
        "images/{split}",
        COCO | {"IMAGES": "images/{split}", "ANNOTATIONS": "annotations/instances_{split}.json"},
        0.01,
        True,
    ),
    "datumaro_voc_detection": ("JPEGImages", VOC | CLASSES | {"SPLIT": "ImageSets/Main/{split}.txt"}, 0.01, False),
    "datumaro_yolo": ("obj_{split}_data", YOLO | {"DATA": "obj.data"}, 0.01, False),
    "datumaro_yolo_ultralytics": ("images/{split}", YOLO | {"DATA": "data.yaml"}, 0.01, False),
    "datumaro_open_images": (
        "images/{split}",
        OPEN_IMAGES | {"IMAGES": "images/{split}", "ANNOTATIONS": "annotations/{split}-annotations-bbox.csv"},
        0.01,
        False,
    ),
    # from masks, whose outlines are pixels
    "supervision_coco": ("images", COCO | {"IMAGES": "images", "ANNOTATIONS": "annotations.json"}, 1.01, True),
    "supervision_voc": (
        "images",
        {"FORMAT": "voc", "IMAGES": "images", "ANNOTATIONS": "annotations"} | CLASSES,
        1.51,
        False,
    ),
    "supervision_yolo": ("images", YOLO | {"DATA": "data.yaml"}, 1.01, True),
    "labelme": (".", {"FORMAT": "labelme", "ANNOTATIONS": "."}, 0.51, True),
}


def block_of(name: str, root: Path, split: str) -> dict:
    """Copy an export, draw its images, and return the block that reads a split of it."""
    images, block, _, _ = EXPORTS[name]
    shutil.copytree(GOLDEN / name, root, dirs_exist_ok=True)
    for stem in ("hive",) if split == "val" else ("meadow 1", "meadow 2", "nothing"):
        path = root / images.format(split=split) / f"{stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZES[stem], (90, 90, 90)).save(path)
    block = {key: value.format(split=split) if isinstance(value, str) else value for key, value in block.items()}
    for key in block.keys() & {"IMAGES", "ANNOTATIONS", "DATA", "CLASSES", "SPLIT"}:
        if block[key] != CLASSES["CLASSES"]:
            block[key] = str(root / block[key])
    if block["FORMAT"] == "yolo":
        block["SPLIT"] = split
    return block


# Only datumaro's exports have two splits.
SPLITS = [(name, split) for name in EXPORTS for split in ("train", "val") if split == "train" or "datumaro" in name]


@pytest.mark.parametrize("name, split", SPLITS)
def test_an_export_has_the_objects_of_its_source(tmp_path, name, split):
    tolerance, has_masks = EXPORTS[name][2:]
    (dataset,) = build_dataset([block_of(name, tmp_path, split)], None, is_train=False)
    assert dataset.class_names == ["queen", "worker bee"] and dataset.has_masks == has_masks
    stems = {Path(dataset.path(index)).stem: index for index in range(len(dataset))}
    assert set(stems) == ({"hive"} if split == "val" else {"meadow 1", "meadow 2", "nothing"})
    for stem, index in stems.items():
        target = dataset.get_groundtruth(index)
        found = zip(target.get_field("labels").tolist(), target.convert("xywh").bbox.tolist(), strict=True)
        found = {dataset.class_names[label - 1]: box for label, box in found}
        assert found.keys() == OBJECTS[stem].keys() and len(target) == len(found)
        for label, box in found.items():
            assert box == pytest.approx(OBJECTS[stem][label], abs=tolerance), (stem, label)
    (training,) = build_dataset([block_of(name, tmp_path, split)], None)
    assert len(training) == len(stems) - ("nothing" in stems)


def test_a_yolo_folder_without_yaml_as_label_studio_exports_it(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (100, 50)).save(tmp_path / "images" / "0a1b-bee 1.png")
    (tmp_path / "labels" / "0a1b-bee 1.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    (tmp_path / "classes.txt").write_text("queen\nworker bee\n")
    (tmp_path / "notes.json").write_text("{}")
    (dataset,) = build_dataset([{"FORMAT": "yolo", "DATA": str(tmp_path), "SPLIT": "train"}], None)
    assert dataset.class_names == ["queen", "worker bee"] and len(dataset.get_groundtruth(0)) == 1


def images_at(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (90, 90, 90)).save(root / name)


BOX, POLYGON = [5, 6, 20, 15], [5, 6, 25, 6, 25, 21, 5, 21]


def annotation(**more) -> dict:
    return {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "area": 300, "iscrowd": 0} | more


def image(**more) -> dict:
    return {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40} | more


# exporter: (images, annotations, categories, path of the image file below the image folder)
LAYOUTS = {
    "roboflow": (
        [image(id=0, license=1, file_name="a_jpg.rf.4f1c.jpg", date_captured="", extra={"name": "a.jpg"})],
        [annotation(id=0, image_id=0, segmentation=[])],
        [{"id": 0, "name": "bees", "supercategory": "none"}, {"id": 1, "name": "bee", "supercategory": "bees"}],
        "a_jpg.rf.4f1c.jpg",
    ),
    "cvat": (
        [image(license=0, flickr_url="", coco_url="", date_captured=0)],
        [annotation(segmentation=[POLYGON], attributes={"occluded": False, "rotation": 0.0})],
        [{"id": 1, "name": "bee", "supercategory": ""}],
        "a.jpg",
    ),
    "label studio": (
        [image(id=0, file_name="images\\..\\images\\0a1b-a.jpg")],
        [annotation(id=0, image_id=0, category_id=0, segmentation=[], ignore=0)],
        [{"id": 0, "name": "bee"}],
        "0a1b-a.jpg",
    ),
    "via": (
        [image(license=0, flickr_url="", coco_url="", date_captured="")],
        [annotation(id="0", image_id="1", segmentation=POLYGON, area="300")],
        [{"supercategory": "type", "id": 1, "name": "bee"}],
        "a.jpg",
    ),
    "supervisely": (
        [image(license=None, coco_url="None", flickr_url="None", date_captured="2024-01-01T00:00:00Z")],
        [annotation(segmentation=[POLYGON])],
        [{"supercategory": "bee", "id": 1, "name": "bee"}],
        "a.jpg",
    ),
    "labelme2coco": (
        [image(id=0, license=0, url=None, file_name="JPEGImages/a.jpg", date_captured=None)],
        [annotation(id=0, image_id=0, segmentation=[POLYGON])],
        [{"supercategory": None, "id": 0, "name": "_background_"}, {"supercategory": None, "id": 1, "name": "bee"}],
        "a.jpg",
    ),
    "objects365": (
        [image(file_name="images/v1/patch8/objects365_v1_00420917.jpg", license=5, url="")],
        [annotation(isfake=0, isreflected=0)],
        [{"id": 1, "name": "bee"}],
        "patch8/objects365_v1_00420917.jpg",
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("exporter", LAYOUTS)
def test_coco_as_exporters_write_it(tmp_path, exporter, training):
    images, annotations, categories, path = LAYOUTS[exporter]
    images_at(tmp_path / "images", path)
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(content))
    dataset = COCODataset(tmp_path / "a.json", tmp_path / "images", training)
    assert dataset.class_names == ["bee"] and dataset.path(0) == str(tmp_path / "images" / path)
    assert dataset.get_groundtruth(0).convert("xywh").bbox.tolist() == [BOX]


def test_datumaro_writes_no_xml_for_an_image_without_objects(tmp_path):
    block = block_of("datumaro_voc_detection", tmp_path, "train")
    (dataset,) = build_dataset([block], None, is_train=False)
    assert isinstance(dataset, PascalVOCDataset) and dataset.report.count("images without an xml file") == 1
    (tmp_path / "Annotations" / "meadow 1.xml").unlink()
    with pytest.raises(FileNotFoundError, match="2 of 3 annotation files are missing"):
        build_dataset([block], None)
