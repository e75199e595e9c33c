"""tools/convert_dataset.py: a clean COCO json of every format."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.panoptic_folder import CAT, DOG, GRASS, PanopticFolder
from PIL import Image

from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets import COCODataset, COCOPanopticDataset, LVISDataset
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.evaluation.coco_export import coco_content

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "convert_dataset.py"
XML = (
    "<annotation><object><name>bee</name><difficult>{difficult}</difficult><bndbox><xmin>11</xmin><ymin>6</ymin>"
    "<xmax>30</xmax><ymax>25</ymax></bndbox></object></annotation>"
)


def image(path: Path, size=(60, 40), **save) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 90, 90)).save(path, **save)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("convert_dataset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def convert(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)


def yolo(root: Path, label: str, **save) -> dict:
    image(root / "images" / "a.jpg", **save)
    image(root / "images" / "b.jpg")
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels" / "a.txt").write_text(label)
    (root / "data.yaml").write_text("train: images\nnames: [queen, worker]\n")
    return {"FORMAT": "yolo", "DATA": str(root / "data.yaml"), "SPLIT": "train"}


def again(content: dict, root, tmp_path, kind=COCODataset, **options):
    (tmp_path / "again.json").write_text(json.dumps(content))
    return kind(tmp_path / "again.json", root, False, **options)


def test_the_outcome_is_clean_and_the_output_says_what_was_repaired(tmp_path):
    block = yolo(tmp_path, "1 0.9 0.5 0.4 0.5\n1 0.9 0.5 0.4 0.5\n7 0.5 0.5 0.1 0.1\n0 0.1 0.2 0.5 0.2 0.5 0.8\n")
    done = convert(json.dumps(block), "--output", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    assert "1 box clipped to the image (annotation ids a.txt#1)" in done.stdout and "1 repeated line" in done.stdout
    assert "2 images, 2 annotations, 2 categories" in done.stdout
    content = json.loads((tmp_path / "out.json").read_text())
    assert [entry["id"] for entry in content["images"]] == [1, 2]
    assert [entry["file_name"] for entry in content["images"]] == ["images/a.jpg", "images/b.jpg"]
    assert content["categories"] == [{"id": 1, "name": "queen"}, {"id": 2, "name": "worker"}]
    first, second = content["annotations"]
    assert first["bbox"] == pytest.approx([42, 10, 18, 20]) and (first["category_id"], first["image_id"]) == (2, 1)
    assert second["segmentation"] == [pytest.approx([6, 8, 30, 8, 30, 32])] and second["iscrowd"] == 0

    (dataset,) = build_dataset([yaml.safe_load(done.stdout.splitlines()[-1])], None)
    assert len(dataset) == 1 and not dataset.report.findings("repaired")
    assert dataset.get_groundtruth(0).get_field("labels").tolist() == [2, 1]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{FORMAT: yolo, DATA: gone.yaml, SPLIT: train}", "DATA gone.yaml of dataset .*_train does not exist"),
        ("{FORMAT: yolo", "is not YAML"),
        ("bees", "is no block"),
        ("{FORMAT: yolo, DAT: x, SPLIT: train}", "unknown key 'DAT'"),
    ],
)
def test_what_is_wrong_is_an_error_in_one_line(tmp_path, tool, monkeypatch, block, message):
    monkeypatch.setattr(sys, "argv", ["convert_dataset.py", block, "--output", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit, match=message):
        tool.main()
    assert not (tmp_path / "out.json").exists()


def test_turned_images_are_pointed_out(tmp_path, tool, monkeypatch, capsys):
    exif = Image.Exif()
    exif[0x0112] = 3
    block = yolo(tmp_path, "0 0.25 0.5 0.2 0.5\n", exif=exif)
    monkeypatch.setattr(sys, "argv", ["convert_dataset.py", json.dumps(block), "--output", str(tmp_path / "out.json")])
    assert tool.main() == 0
    assert "1 image is turned as EXIF says: use DATASETS.EXIF_ROTATION: upright" in capsys.readouterr().out
    images = ImageSettings(exif_rotation="upright")
    dataset = again(json.loads((tmp_path / "out.json").read_text()), tmp_path, tmp_path, images=images)
    assert dataset.is_turned(0) and dataset.get_groundtruth(0).convert("xywh").bbox.tolist() == [[9, 10, 12, 20]]


def test_difficult_objects_become_crowd(tmp_path):
    for name, difficult in (("a", 0), ("b", 1)):
        image(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.xml").write_text(XML.format(difficult=difficult))
    block = {"FORMAT": "voc", "IMAGES": str(tmp_path), "ANNOTATIONS": str(tmp_path)}
    (dataset,) = build_dataset([block], None, is_train=False)
    content = coco_content(dataset)
    assert [entry["iscrowd"] for entry in content["annotations"]] == [0, 1]
    assert content["annotations"][0]["bbox"] == [10, 5, 20, 20]
    outcome = again(content, tmp_path, tmp_path)
    assert outcome.report.count("crowd regions") == 1 and len(outcome.get_groundtruth(0)) == 1


def test_things_and_crowd_of_a_panoptic_dataset_without_instances(tmp_path):
    folder = PanopticFolder(tmp_path / "data")
    ids = folder.add(5, [(700, GRASS, (0, 15, 40, 15)), (9, CAT, (5, 10, 20, 12)), (70, DOG, (20, 12, 10, 8))])
    folder.add(6, [(4, CAT, (2, 3, 20, 9), {"iscrowd": 1}), (6, DOG, (25, 5, 10, 10))])
    arguments = folder.write()
    dataset = COCOPanopticDataset(
        **arguments, remove_images_without_annotations=False, segments_dir=str(folder.root / "segments")
    )
    content = json.loads(json.dumps(coco_content(dataset)))
    boxes = [(each["image_id"], each["category_id"], each["bbox"], each["iscrowd"]) for each in content["annotations"]]
    assert boxes == [
        (5, CAT, [5, 10, 20, 12], 0),
        (5, DOG, [20, 12, 10, 8], 0),
        (6, DOG, [25, 5, 10, 10], 0),
        (6, CAT, [2, 3, 20, 9], 1),
    ]
    assert [each["area"] for each in content["annotations"][:2]] == [int((ids == 9).sum()), int((ids == 70).sum())]
    outcome = again(content, arguments["root"], tmp_path)
    assert outcome.has_masks and outcome.class_names == ["cat", "dog"] and outcome.report.count("crowd regions") == 1


def test_keypoints_masks_and_crowd_survive(tmp_path):
    image(tmp_path / "a.jpg")
    square = [5, 6, 25, 6, 25, 21, 5, 21]
    rows = [
        {"segmentation": [square], "keypoints": [5, 6, 2, 0, 0, 0], "iscrowd": 0},
        {"segmentation": {"size": [40, 60], "counts": [410, 20, 1970]}, "iscrowd": 1},
    ]
    bare = {"image_id": "x", "category_id": 0, "bbox": [5, 6, 20, 15]}
    content = {
        "images": [{"id": "x", "file_name": "A.JPG", "width": 60, "height": 40}],
        "annotations": [{"id": k, **bare, **row} for k, row in enumerate(rows)],
        "categories": [{"id": 0, "name": "bee", "keypoints": ["left", "right"]}],
    }
    dataset = again(content, tmp_path, tmp_path)
    outcome = coco_content(dataset)
    json.dumps(outcome)
    assert outcome["images"] == [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}]
    assert outcome["categories"] == [{"id": 1, "name": "bee", "keypoints": ["left", "right"], "skeleton": []}]
    first, second = outcome["annotations"]
    assert first["segmentation"] == [square] and first["keypoints"] == [5, 6, 2, 0, 0, 0]
    assert second["iscrowd"] == 1 and isinstance(second["segmentation"], dict)
    assert again(outcome, tmp_path, tmp_path).get_groundtruth(0).get_field("keypoints").keypoints.shape == (1, 2, 3)


def test_what_lvis_knows_of_images_is_kept(tmp_path):
    image(tmp_path / "val2017" / "7.jpg")
    content = {
        "images": [
            {
                "id": 7,
                "coco_url": "http://images.cocodataset.org/val2017/7.jpg",
                "width": 60,
                "height": 40,
                "neg_category_ids": [3],
                "not_exhaustive_category_ids": [2],
            }
        ],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 2, "bbox": [5, 6, 20, 15], "area": 300}],
        "categories": [{"id": k, "name": f"c{k}", "frequency": "rcf"[k % 3]} for k in (2, 3)],
    }
    dataset = again(content, tmp_path, tmp_path, LVISDataset)
    outcome = again(coco_content(dataset), tmp_path, tmp_path, LVISDataset)
    federation = outcome.federation()
    assert federation.absent == {7: {3}} and federation.incomplete == {7: {2}}
    assert federation.frequency == {2: "f", 3: "r"}
