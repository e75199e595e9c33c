"""Tables of the formats other than COCO: used while the files are the same, rebuilt after any change to them."""

from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path

import pytest
from helpers.cityscapes_tree import write_tree
from helpers.samples import assert_same_samples
from PIL import Image

from maskrcnn_benchmark.data.datasets import (
    CityScapesDataset,
    LabelMeDataset,
    OpenImagesDataset,
    PascalVOCDataset,
    YOLODataset,
    table_cache,
)
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.stored_tables import open_stored, verify_annotations, verify_images
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings

KEPT = Reading(keep_empty_images=True, tables=TableSettings("always"))
MEMORY = Reading(keep_empty_images=True, tables=TableSettings("never"))

NAMES = ("a", "b", "c")


class Folder:
    """A small dataset of one format, and what may be done to it.

    Attributes:
        edited: path of an annotation file, a text in it, and another one.
        added: path of an annotation file that may be added, and its text; None if there is no such file.
        more: the same as `edited` for another file that counts, or None.
    """

    def __init__(self, root: Path, kind: str):
        self.root, self.kind = root, kind
        getattr(self, f"_{kind}")()

    def image(self, name: str) -> None:
        path = self.root / "images" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (100, 50)).save(path)

    def _yolo(self):
        (self.root / "labels").mkdir()
        for name in NAMES:
            self.image(name)
            (self.root / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.2 0.1 0.2 0.2\n")
        (self.root / "data.yaml").write_text("train: images\nnames: [bee, wasp]\n")
        self.edited = self.root / "labels" / "b.txt", "0.4\n", "0.6\n"
        self.added = self.root / "labels" / "d.txt", "1 0.5 0.5 0.2 0.4\n"
        self.more = self.root / "data.yaml", "names: [bee, wasp]", "names: [bee, hornet]"

    def _labelme(self):
        (self.root / "json").mkdir()
        for name in NAMES:
            self.image(name)
            self.added = self.root / "json" / f"{name}.json", self._shapes(name)
            self.added[0].write_text(self.added[1])
        self.edited = self.root / "json" / "b.json", "[30, 25]", "[30, 35]"
        self.added = self.root / "json" / "d.json", self._shapes("d")
        (self.root / "split.txt").write_text("a\nb\nc\n")
        self.more = self.root / "split.txt", "a\nb\nc\n", "a\nb\n"

    @staticmethod
    def _shapes(name: str) -> str:
        shape = {"label": "bee", "points": [[10, 5], [30, 5], [30, 25], [10, 25]], "shape_type": "polygon"}
        about = {"imagePath": f"{name}.jpg", "imageWidth": 100, "imageHeight": 50}
        return json.dumps({"shapes": [shape], **about})

    def _voc(self):
        (self.root / "xml").mkdir()
        for name in NAMES:
            self.image(name)
            (self.root / "xml" / f"{name}.xml").write_text(self._xml())
        self.edited = self.root / "xml" / "b.xml", "<ymax>25<", "<ymax>35<"
        self.added = self.root / "xml" / "d.xml", self._xml()
        (self.root / "split.txt").write_text("a\nb\nc\n")
        self.more = self.root / "split.txt", "a\nb\nc\n", "c\nb\na\n"

    @staticmethod
    def _xml() -> str:
        box = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>31</xmax><ymax>25</ymax></bndbox>"
        size = "<size><width>100</width><height>50</height><depth>3</depth></size>"
        objects = f"<object><name>bee</name><difficult>{{}}</difficult>{box}</object>"
        return f"<annotation>{size}{objects.format(0)}{objects.format(1)}</annotation>"

    def _openimages(self):
        rows = ["ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf"]
        for name in NAMES:
            self.image(name)
            rows += [f"{name},/m/bee,0.1,0.5,0.2,0.6,0", f"{name},/m/bee,0.5,0.7,0.1,0.9,1"]
        (self.root / "boxes.csv").write_text("\n".join(rows) + "\n")
        (self.root / "classes.csv").write_text("/m/bee,bee\n/m/wasp,wasp\n")
        self.edited = self.root / "boxes.csv", "b,/m/bee,0.1,0.5,0.2,0.6", "b,/m/bee,0.1,0.5,0.2,0.8"
        self.added = None
        self.more = self.root / "classes.csv", "wasp\n", "hornet\n"

    def _cityscapes(self):
        write_tree(self.root)
        first = self.root / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_polygons.json"
        self.edited = first, "[49, 10], [49, 39]", "[48, 10], [48, 39]"
        self.added = self.more = None

    def open(self, reading=KEPT, training=False, **options):
        root = self.root
        if self.kind == "yolo":
            return YOLODataset(root / "data.yaml", "train", training, reading=reading, **options)
        if self.kind == "labelme":
            split = {"split_file": root / "split.txt"} if options.pop("split", False) else {}
            return LabelMeDataset(root / "json", root / "images", training, reading=reading, **split, **options)
        if self.kind == "openimages":
            places = root / "images", root / "boxes.csv", root / "classes.csv", None
            return OpenImagesDataset(*places, training, reading=reading, **options)
        options["remove_images_without_annotations"] = training
        if self.kind == "cityscapes":
            return CityScapesDataset(root / "leftImg8bit", root / "gtFine", "train", "poly", reading=reading, **options)
        split = root / "split.txt" if options.pop("split", False) else None
        options = {"class_names": "from the data", "split_file": split, **options}
        return PascalVOCDataset(image_dir=root / "images", annotation_dir=root / "xml", reading=reading, **options)


FORMATS = ("yolo", "labelme", "voc", "openimages", "cityscapes")


@pytest.fixture(params=FORMATS)
def folder(request, tmp_path):
    return Folder(tmp_path, request.param)


def replace_text(path: Path, old: str, new: str, keep_time: bool = False) -> None:
    """Replace a text in a file, in place."""
    text, before = path.read_text(), path.stat()
    assert old in text
    path.write_text(text.replace(old, new))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("training", [False, True])
def test_a_later_start_has_the_same_samples_and_opens_no_file(folder, reads, training, monkeypatch):
    wanted, first = folder.open(MEMORY, training), folder.open(training=training)
    assert len(reads) == 2 and len(wanted) == 3 and wanted.table_file is None
    places = {"labelme": "json", "voc": "xml", "cityscapes": "gtFine"}
    assert Path(first.table_file).parent == folder.root / places.get(folder.kind, "") / ".mb_tables"
    monkeypatch.setattr("maskrcnn_benchmark.data.datasets.image_checks.read_headers", None)
    found = folder.open(training=training)
    assert len(reads) == 2 and found.table_file == first.table_file
    for dataset in (first, found, pickle.loads(pickle.dumps(found))):
        assert_same_samples(dataset, wanted)
    for name in ("json_category_id_to_contiguous_id", "contiguous_category_id_to_json_id"):
        assert getattr(found, name, None) == getattr(wanted, name, None)


@pytest.mark.parametrize("keep_time", [False, True])
def test_an_edited_file_of_the_same_size_is_noticed(folder, reads, keep_time, caplog):
    before = folder.open()
    path, old, new = folder.edited
    with caplog.at_level(logging.INFO):
        replace_text(path, old, new, keep_time)
        after = folder.open()
    assert len(reads) == 2 and f"{path} has changed since" in caplog.text
    assert [after.get_groundtruth(k).bbox.tolist() for k in range(3)] != [
        before.get_groundtruth(k).bbox.tolist() for k in range(3)
    ]
    folder.open()
    assert len(reads) == 2


def test_touched_and_copied_files_are_the_same(folder, reads, monkeypatch):
    folder.open()
    for path in folder.root.rglob("*"):
        if path.is_file() and path.suffix in (".txt", ".json", ".xml", ".csv"):
            os.utime(path, (1, 1))
            copy = path.with_name("copied")
            copy.write_bytes(path.read_bytes())
            copy.replace(path)
    folder.open()
    assert len(reads) == 1


def test_file_systems_without_inodes_have_tables(folder, reads, monkeypatch):
    status = table_cache.SourceState.__init__

    def without_inodes(self, sources):
        status(self, sources)
        self.status[:, 3] = len(seen)
        seen.append(self)

    seen: list = []
    monkeypatch.setattr(table_cache.SourceState, "__init__", without_inodes)
    monkeypatch.setattr(table_cache.SourceState, "is_as_before", lambda self: True)
    for _ in range(3):
        folder.open()
    assert len(seen) == 3 and len(reads) == 1


@pytest.mark.parametrize("folder", ["yolo", "labelme", "voc"], indirect=True)
def test_added_and_removed_files_are_noticed(folder, reads):
    assert len(folder.open()) == 3
    path, text = folder.added
    folder.image("d")
    path.write_text(text)
    assert folder.open().class_names and len(folder.open()) == 4 and len(reads) == 2
    path.unlink()
    (folder.root / "images" / "d.jpg").unlink()
    assert len(folder.open()) == 3 and len(reads) == 3


@pytest.mark.parametrize("kind", ["yolo", "voc", "openimages"])
def test_a_new_image_is_noticed(tmp_path, kind, reads):
    folder = Folder(tmp_path, kind)
    folder.open()
    folder.image("d")
    folder.open()
    assert len(reads) == 2


@pytest.mark.parametrize("folder", ["yolo", "labelme", "voc", "openimages"], indirect=True)
def test_other_files_of_the_dataset_count(folder, reads):
    split = {"split": True} if folder.kind in ("labelme", "voc") else {}
    before = folder.open(**split)
    replace_text(*folder.more)
    after = folder.open(**split)
    assert len(reads) == 2 and (before.class_names, list(before.ids)) != (after.class_names, list(after.ids))
    assert before.table_file == after.table_file


def test_a_label_file_for_an_image_without_one_is_noticed(tmp_path, reads):
    folder = Folder(tmp_path, "yolo")
    folder.image("d")
    assert len(folder.open().get_groundtruth(3)) == 0
    folder.added[0].write_text(folder.added[1])
    assert len(folder.open().get_groundtruth(3)) == 1 and len(reads) == 2


def test_a_missing_file_is_the_same_error_as_without_a_table(folder):
    folder.open()
    gone = {"yolo": "images", "labelme": "json", "voc": "xml", "openimages": "boxes.csv", "cityscapes": "gtFine"}
    (folder.root / gone[folder.kind]).rename(folder.root / "elsewhere")
    errors = []
    for reading in (MEMORY, KEPT):
        with pytest.raises(FileNotFoundError) as error:
            folder.open(reading)
        errors.append(str(error.value))
    assert errors[0] == errors[1]


def test_other_settings_have_other_tables(folder, reads):
    tables = {folder.open(training=training).table_file for training in (False, True)}
    assert len(tables) == 2
    if folder.kind in ("labelme", "voc"):
        tables |= {folder.open(class_names=names).table_file for names in (["bee"], ["wasp", "bee"])}
    if folder.kind == "voc":
        tables |= {folder.open(first_pixel=0).table_file, folder.open(use_difficult=True).table_file}
    assert len(tables) == len(reads)


def test_a_dataset_opens_from_its_table_alone(folder, reads, monkeypatch):
    wanted = folder.open(name="bees")
    monkeypatch.chdir(folder.root.parent)
    found = open_stored(wanted.table_file)
    assert type(found) is type(wanted) and found.table_file == wanted.table_file and len(reads) == 1
    assert_same_samples(found, wanted)
    again = open_stored(wanted.table_file, rebuild=True)
    assert len(reads) == 2 and again.table_file == wanted.table_file
    assert_same_samples(again, wanted)


def test_relative_paths_have_the_same_table(tmp_path, monkeypatch, reads):
    folder = Folder(tmp_path, "voc")
    folder.open()
    monkeypatch.chdir(tmp_path)
    folder.root = Path(".")
    folder.open()
    assert len(reads) == 1


def test_all_files_are_compared_on_request(folder, monkeypatch):
    dataset = folder.open()
    assert list(verify_images(dataset)) == list(verify_annotations(dataset)) == []
    path, old, new = folder.edited
    replace_text(path, old, new)
    Image.new("RGB", (9, 8)).save(dataset.path(0))
    assert [name for name, _ in verify_annotations(dataset)] == [str(path)]
    assert [index for index, _ in verify_images(dataset)] == [0]
    path.unlink()
    ((_, trouble),) = verify_annotations(dataset)
    assert trouble.startswith("FileNotFoundError")


def test_many_small_files_have_a_table_unless_told_otherwise(folder, monkeypatch):
    readings = [Reading(tables=TableSettings(mode)) for mode in ("auto", "never")]
    assert [folder.open(reading).table_file for reading in readings] == [None, None]
    monkeypatch.setattr(table_cache, "MANY", 1)
    assert folder.open(readings[0]).table_file and folder.open(readings[1]).table_file is None
