"""YOLO datasets: what data.yaml may say, and what label files may hold."""

from __future__ import annotations

import pytest
import torch
import yaml
from PIL import Image

from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets import YOLODataset, image_checks
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.images import read_headers
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.evaluation import evaluate
from maskrcnn_benchmark.evaluation.ground_truth import ground_truth_of

NAMES = ["queen", "worker"]
EMPTY = Reading(keep_empty_images=True)


class Folder:
    """images/SPLIT/NAME.jpg of 100 x 50, labels/SPLIT/NAME.txt and data.yaml."""

    def __init__(self, root):
        self.root = root
        self.content = {"path": ".", "train": "images/train", "val": "images/val", "names": NAMES}

    def add(self, name, label=None, size=(100, 50), split="train", **save) -> None:
        image = self.root / "images" / split / name
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 60, 30)).save(image, **save)
        if label is not None:
            path = self.root / "labels" / split / f"{image.stem}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(label if isinstance(label, bytes) else label.encode())

    def data(self, **changes) -> str:
        content = {key: value for key, value in {**self.content, **changes}.items() if value is not None}
        (self.root / "data.yaml").write_text(yaml.safe_dump(content))
        return str(self.root / "data.yaml")

    def open(self, split="train", training=True, **options) -> YOLODataset:
        changes = options.pop("changes", {})
        return YOLODataset(self.data(**changes), split, training, **options)


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path)
    folder.add("a.jpg", "1 0.5 0.5 0.2 0.4\n")
    return folder


def boxes(dataset, index=0):
    return dataset.get_groundtruth(index).convert("xywh").bbox.tolist()


def counts(dataset) -> dict[str, int]:
    return {f.what: f.count for action in ("dropped", "repaired", "noted") for f in dataset.report.findings(action)}


def test_a_box_is_center_and_size_relative_to_the_image(folder):
    dataset = folder.open()
    assert boxes(dataset) == [[40, 15, 20, 20]]
    assert dataset.get_groundtruth(0).get_field("labels").tolist() == [2]
    assert (dataset.class_names, dataset.ids, dataset.has_masks) == (NAMES, ["images/train/a.jpg"], False)
    assert dataset.contiguous_category_id_to_json_id == {1: 0, 2: 1}


def test_a_longer_line_is_a_polygon_even_beside_boxes(folder):
    folder.add("a.jpg", "0 0.1 0.2 0.5 0.2 0.5 0.8\n1 0.5 0.5 0.2 0.4\n")
    dataset = folder.open()
    assert boxes(dataset) == [[10, 10, 40, 30], [40, 15, 20, 20]]
    masks = dataset.get_groundtruth(0).get_field("masks")
    assert masks[0].instances.polygons[0].polygons[0].tolist() == [10, 10, 50, 10, 50, 40]
    assert counts(dataset) == {"objects without a usable segmentation, with their box as mask": 1}


def test_empty_and_missing_label_files_are_images_without_objects(folder):
    folder.add("b.jpg", "")
    folder.add("c.jpg")
    folder.add("d.jpg", " \n\r\n")
    assert len(folder.open()) == 1
    dataset = folder.open(reading=EMPTY)
    assert len(dataset) == 4 and counts(dataset)["images without a label file"] == 1
    assert counts(dataset)["images without objects, trained on"] == 3


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("7 0.5 0.5 0.2 0.4", "annotations of unknown categories"),
        ("0.5 0.5 0.5 0.2 0.4", "annotations of unknown categories"),
        ("1 0.5 0.5 0.2 0.4", "repeated lines"),
        ("0 0.5 0.5 0.2", "lines of a wrong number of columns"),
        ("0 0.1 0.2 0.5 0.2 0.5 0.8 0.9", "lines of a wrong number of columns"),
        ("bee 0.5 0.5 0.2 0.4", "lines that are not numbers"),
        ("0 0,5 0,5 0,2 0,4", "lines that are not numbers"),
        ("0 nan 0.5 0.2 0.4", "boxes that are missing, not four numbers, or not finite"),
        ("0 0.5 0.5 -0.2 0.4", "inverted boxes"),
        ("0 0.5 0.5 0 0.4", "boxes without area (at most one pixel wide or high)"),
        ("0 1.4 0.5 0.2 0.4", "boxes outside the image"),
    ],
)
def test_a_bad_line_is_dropped_and_counted(folder, line, finding):
    folder.add("a.jpg", f"1 0.5 0.5 0.2 0.4\n{line}\n")
    dataset = folder.open()
    assert boxes(dataset) == [[40, 15, 20, 20]]
    assert counts(dataset) == {finding: 1} and "a.txt#2" in str(dataset.report)


@pytest.mark.parametrize(
    ("line", "box", "finding"),
    [
        ("0 0.9 0.5 0.4 0.4", [70, 15, 30, 20], "boxes clipped to the image"),
        (
            "0 0.5 0.5 0.2 0.4 0.87",
            [40, 15, 20, 20],
            "boxes followed by a sixth column (a confidence), which is not used",
        ),
    ],
)
def test_a_line_that_can_be_used_is_repaired_and_counted(folder, line, box, finding):
    folder.add("a.jpg", line)
    dataset = folder.open()
    assert boxes(dataset) == [box] and counts(dataset) == {finding: 1}


def test_coordinates_in_pixels_are_an_error(folder):
    folder.add("a.jpg", "0 50 25 20 20\n1 0.5 0.5 0.2 0.4\n")
    folder.add("b.jpg", "0 50 25 20 20\n")
    with pytest.raises(ValueError, match=r"2 of 3 lines .*beyond 2 \(a.txt#1, b.txt#1.*Divide pixels"):
        folder.open()


def test_class_numbers_from_one_are_an_error(folder):
    folder.add("a.jpg", "1 0.5 0.5 0.2 0.4\n2 0.5 0.5 0.1 0.1")
    with pytest.raises(ValueError, match="each is one more than a listed one"):
        folder.open()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings_and_line_ends(folder, encoding):
    folder.add("a.jpg", "0 0.5 0.5 0.2 0.4\r\n1\t0.5 0.5 0.1 0.2\r\n".encode(encoding))
    assert boxes(folder.open()) == [[40, 15, 20, 20], [45, 20, 10, 10]]


def test_coordinates_refer_to_the_upright_image(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.add("b.jpg", "0 0.5 0.5 0.2 0.4", exif=exif)
    dataset = folder.open()
    assert dataset[1][0].size == (50, 100) and boxes(dataset, 1) == [[20, 30, 10, 40]]
    stored = folder.open(images=ImageSettings(exif_rotation="stored"))
    assert stored[1][0].size == (100, 50) and boxes(stored, 1) == [[40, 15, 20, 20]]


@pytest.mark.parametrize("dims", [2, 3])
def test_pose_lines_have_keypoints(folder, dims):
    points = "0.1 0.2 2 0 0 0" if dims == 3 else "0.1 0.2 0 0"
    folder.add("a.jpg", f"0 0.5 0.5 0.2 0.4 {points}\n0 0.3 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4 0.1 0.2\n")
    changes = {"kpt_shape": [2, dims], "kpt_names": {0: ["left_wing", "right_wing"]}}
    dataset = folder.open(changes=changes)
    keypoints = dataset.get_groundtruth(0).get_field("keypoints").keypoints
    assert keypoints[0].tolist() == [[10, 10, 2], [0, 0, 0]] and dataset.keypoint_flip_inds == (1, 0)
    assert counts(dataset)["lines of a wrong number of columns"] == 1


def test_missing_images_of_a_list_and_broken_ones_are_named(folder):
    (folder.root / "train.txt").write_text("./images/train/a.jpg\nimages/train/gone.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images.*images/train/gone.jpg"):
        folder.open(changes={"train": "train.txt"})
    (folder.root / "images/train/b.jpg").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"1 of 2 images in .* cannot be decoded: images/train/b.jpg: not an image"):
        folder.open()


@pytest.mark.parametrize(
    "changes",
    [
        {"path": None},
        {"path": "/content/elsewhere/bees"},
        {"path": "C:\\Users\\me\\bees"},
        {"path": None, "train": "../images/train"},
        {"path": None, "train": "../project/images/train"},
        {"path": None, "train": "/content/bees/images/train"},
        {"path": None, "train": "C:\\bees\\images\\train"},
        {"train": ["images/train"], "names": {0: "queen", 1: "worker"}, "nc": 2},
        {"train": "images\\train"},
        {"train": "images/*"},
        {"train": "train.txt"},
        {"train": "darknet.txt"},
        {"train": "absolute.txt"},
        {"names": {"1": "worker", "0": "queen"}},
    ],
    ids=str,
)
def test_ways_to_say_where_the_images_are(folder, changes):
    (folder.root / "train.txt").write_text("images/train/a.jpg\n\n")
    (folder.root / "darknet.txt").write_bytes(b"data\\images\\train\\a.jpg\r\n")
    (folder.root / "absolute.txt").write_text(f"{folder.root}/images/train/a.jpg\n")
    dataset = folder.open(changes=changes)
    assert dataset.ids == ["images/train/a.jpg"] and dataset.class_names == NAMES and len(boxes(dataset)) == 1
    moved = str(changes.get("path")).startswith(("/content", "C:"))
    assert ("values of 'path' that are no folder here, replaced by the folder of the yaml" in counts(dataset)) == moved


def test_path_may_name_the_folder_of_the_yaml(tmp_path):
    (tmp_path / "bees").mkdir()
    folder = Folder(tmp_path / "bees")
    folder.add("a.jpg", "0 0.5 0.5 0.2 0.4")
    assert folder.open(changes={"path": "bees"}).ids == ["images/train/a.jpg"]
    assert folder.open(changes={"path": "../bees"}).ids == ["images/train/a.jpg"]


def test_roboflow_writes_valid_and_a_folder_above(tmp_path):
    for part, name in (("train", "a"), ("valid", "b")):
        (tmp_path / part / "images").mkdir(parents=True)
        (tmp_path / part / "labels").mkdir()
        Image.new("RGB", (100, 50)).save(tmp_path / part / "images" / f"{name}.jpg")
        (tmp_path / part / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.4")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['bee']\n"
        "roboflow:\n  workspace: me\n  version: 3\n"
    )
    dataset = YOLODataset(str(tmp_path / "data.yaml"), "val", False)
    assert dataset.ids == ["valid/images/b.jpg"] and boxes(dataset) == [[40, 15, 20, 20]]
    assert YOLODataset(str(tmp_path / "data.yaml"), "valid", False).ids == dataset.ids
    with pytest.raises(FileNotFoundError, match="test: ../test/images does not exist"):
        YOLODataset(str(tmp_path / "data.yaml"), "test", False)


def test_darknet_lists_and_labels_beside_images(tmp_path):
    (tmp_path / "obj_train_data").mkdir()
    Image.new("RGB", (100, 50)).save(tmp_path / "obj_train_data" / "a.png")
    (tmp_path / "obj_train_data" / "a.txt").write_text("1 0.5 0.5 0.2 0.4")
    (tmp_path / "obj.names").write_text("queen\nworker\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
    (tmp_path / "obj.data").write_text(
        "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    dataset = YOLODataset(str(tmp_path / "obj.data"), "train", True)
    assert dataset.ids == ["obj_train_data/a.png"] and dataset.class_names == NAMES
    assert boxes(dataset) == [[40, 15, 20, 20]]


def test_images_may_be_ppm_files(folder):  # GTSDB
    folder.add("b.ppm", "0 0.5 0.5 0.2 0.4\n")
    dataset = folder.open()
    assert dataset.ids == ["images/train/a.jpg", "images/train/b.ppm"]
    assert dataset[1][0].getpixel((0, 0)) == (90, 60, 30)


def test_links_to_a_folder_above_are_followed_once(folder):
    (folder.root / "images" / "train" / "loop").symlink_to(folder.root / "images", target_is_directory=True)
    folder.add("v.jpg", "0 0.5 0.5 0.2 0.4", split="val")
    assert len(folder.open(reading=EMPTY)) == 2


def test_label_files_without_an_image_are_noted(folder):
    for name in ("gone.txt", "classes.txt"):
        (folder.root / "labels" / "train" / name).write_text("0 0.5 0.5 0.2 0.4")
    dataset = folder.open()
    assert counts(dataset) == {"label files without an image": 1} and "gone.txt" in str(dataset.report)


def test_headers_are_read_once_for_reading_checks_and_evaluation(folder, monkeypatch):
    read = []

    def counting(paths):
        paths = list(paths)
        read.extend(paths)
        return read_headers(paths)

    monkeypatch.setattr(image_checks, "read_headers", counting)
    dataset = folder.open()
    assert len(ground_truth_of(dataset)["images"]) == len(dataset) > 0
    assert len(read) == len(set(read)) == len(dataset)


def test_no_label_file_at_all_is_warned_of(folder, caplog):
    folder.add("b.jpg", split="val")
    folder.open("val", training=False)
    assert "none of 1 images has a label file" in caplog.text


@pytest.mark.parametrize(
    ("changes", "split", "error", "message"),
    [
        ({"names": None}, "train", ValueError, "expected a list of class names"),
        ({"names": []}, "train", ValueError, "expected a list of class names"),
        ({"names": {1: "a", 2: "b"}}, "train", ValueError, "has the keys 1, 2; expected 0 to K - 1"),
        ({"nc": 3}, "train", ValueError, "nc is 3, but names has 2: queen, worker"),
        ({}, "test", ValueError, r"no split 'test' \(SPLIT\); it has train, val"),
        ({"train": "imges/train"}, "train", FileNotFoundError, "imges/train does not exist in .*Nearest: .*images"),
        ({"kpt_shape": [2]}, "train", ValueError, r"expected \[keypoints, 2 or 3\]"),
    ],
)
def test_what_is_wrong_in_the_yaml_is_named(folder, changes, split, error, message):
    with pytest.raises(error, match=message):
        folder.open(split, changes=changes)


@pytest.mark.parametrize("text", ["names: [a", "- a", ""])
def test_a_file_that_is_no_data_yaml_is_an_error(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"data.yaml \(DATA\)"):
        YOLODataset(str(tmp_path / "data.yaml"), "train", True)


def test_classes_without_names_are_numbered(folder):
    assert folder.open(changes={"names": None, "nc": 2}).class_names == ["class_0", "class_1"]


def test_a_block_names_yaml_and_split(folder):
    block = {"FORMAT": "yolo", "DATA": folder.data(), "SPLIT": "train"}
    (dataset,) = build_dataset([block], None)
    assert isinstance(dataset, YOLODataset) and dataset.name == f"{folder.root.name}_train" and len(dataset) == 1
    with pytest.raises(ValueError, match="lacks SPLIT"):
        DatasetCatalog.from_block({"FORMAT": "yolo", "DATA": folder.data()})


def test_evaluation_reads_the_same_objects(folder):
    folder.add("a.jpg", "0 0.1 0.2 0.5 0.2 0.5 0.8\n1 0.9 0.5 0.4 0.4\n1 0.9 0.5 0.4 0.4\n7 0.5 0.5 0.1 0.1\n")
    folder.add("b.jpg", "0 0.5 0.5 0.2 0.4", size=(30, 80))
    folder.add("c.jpg")
    dataset = folder.open(training=False)
    predictions = []
    for index in range(len(dataset)):
        found = dataset.get_groundtruth(index).copy_with_fields("labels")
        found.add_field("scores", torch.full((len(found),), 0.9))
        predictions.append(found)
    results = evaluate(dataset, predictions, None)
    assert dict(results.results["bbox"])["AP"] == 1
    truth = ground_truth_of(dataset, ("bbox", "segm"))
    assert [a["category_id"] for a in truth["annotations"]] == [0, 1, 0]
    assert truth["annotations"][0]["segmentation"] == [[10, 10, 50, 10, 50, 40]]
