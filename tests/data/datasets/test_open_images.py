"""Open Images: boxes in a csv, classes in another, and a folder with a part of the images."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets import OpenImagesDataset
from maskrcnn_benchmark.evaluation import evaluate

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
CLASSES = '/m/bee,Bee\n/m/cat,"Cat, large"\n/m/dog,Dog\n'


def row(image, label="/m/cat", x=(0.1, 0.5), y=(0.2, 0.6), group="0") -> str:
    return f"{image},xclick,{label},1,{x[0]},{x[1]},{y[0]},{y[1]},0,0,{group},0,0"


class Folder:
    def __init__(self, root):
        self.root = root
        (root / "images").mkdir()
        (root / "classes.csv").write_text(CLASSES)
        for name in ("b2", "a1"):
            self.add(name)

    def add(self, name, **save) -> None:
        Image.new("RGB", (100, 50)).save(self.root / "images" / f"{name}.jpg", **save)

    def open(self, *rows, header=HEADER, encoding="utf-8", classes="classes.csv", **options) -> OpenImagesDataset:
        (self.root / "boxes.csv").write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
        classes = classes and str(self.root / classes)
        return OpenImagesDataset(str(self.root / "images"), str(self.root / "boxes.csv"), classes, **options)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def boxes(dataset, index=0):
    return dataset.get_groundtruth(index).convert("xywh").bbox.round(decimals=3).tolist()


def counts(dataset) -> dict[str, int]:
    return {f.what: f.count for action in ("dropped", "repaired", "noted") for f in dataset.report.findings(action)}


def test_boxes_are_shares_of_the_image_and_groups_are_crowd(folder):
    dataset = folder.open(row("a1"), row("b2", "/m/dog"), row("a1", "/m/dog", (0.5, 0.7), (0, 1), "1"))
    assert dataset.ids == ["a1", "b2"] and dataset.class_names == ["Bee", "Cat, large", "Dog"]
    assert boxes(dataset) == [[10, 10, 40, 20]] and dataset.get_groundtruth(0).get_field("labels").tolist() == [2]
    assert counts(dataset) == {"crowd regions": 1}


@pytest.mark.parametrize("group", ["-1", "0", ""])
def test_an_unknown_group_flag_is_no_group(folder, group):
    assert len(boxes(folder.open(row("a1", group=group)))) == 1


@pytest.mark.parametrize(
    ("bad", "finding"),
    [
        (row("a1", "/m/fish"), "annotations of unknown categories"),
        (row("zz"), "boxes of images that are not used (not in the folder, or not in SPLIT)"),
        (row("a1"), "repeated rows"),
        (row("a1", x=("", 0.5)), "boxes that are missing, not four numbers, or not finite"),
        (row("a1", x=(0.5, 0.1)), "inverted boxes"),
        (row("a1", x=(1.2, 1.5)), "boxes outside the image"),
        ("a1,xclick,/m/cat", "boxes that are missing, not four numbers, or not finite"),
    ],
)
def test_a_bad_row_is_dropped_and_counted(folder, bad, finding):
    dataset = folder.open(row("a1"), bad)
    assert boxes(dataset) == [[10, 10, 40, 20]] and counts(dataset) == {finding: 1}


def test_images_of_a_split_must_exist_others_are_those_of_the_folder(folder):
    (folder.root / "split.csv").write_text("ImageID,Subset\nb2,train\n")
    dataset = folder.open(row("a1"), row("b2"), split_file=str(folder.root / "split.csv"))
    assert dataset.ids == ["b2"] and sum(counts(dataset).values()) == 1
    (folder.root / "split.csv").write_text("train/b2\ntrain/c3\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images of .*split.csv \(SPLIT\) are missing .*: c3"):
        folder.open(row("a1"), split_file=str(folder.root / "split.csv"))


def test_without_descriptions_labels_are_the_names(folder):
    assert folder.open(row("a1"), row("a1", "/m/bee"), classes=None).class_names == ["/m/bee", "/m/cat"]


def test_descriptions_may_have_a_header(folder):
    (folder.root / "v7.csv").write_text("LabelName,DisplayName\n/m/cat,Cat\n")
    dataset = folder.open(row("a1"), row("a1", "/m/dog"), classes="v7.csv")
    assert dataset.class_names == ["Cat"] and counts(dataset) == {"annotations of unknown categories": 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings(folder, encoding):
    assert len(boxes(folder.open(row("a1"), encoding=encoding))) == 1


def test_coordinates_refer_to_the_upright_image(folder):
    exif = Image.Exif()
    exif[0x0112] = 8
    folder.add("a1", exif=exif)
    dataset = folder.open(row("a1"))
    assert dataset[0][0].size == (50, 100) and boxes(dataset) == [[5, 20, 20, 40]]


def test_what_is_wrong_with_the_files_is_named(folder):
    with pytest.raises(ValueError, match=r"boxes.csv lacks the columns LabelName, XMin.*'ImageID,MaskPath'"):
        folder.open(header="ImageID,MaskPath")
    (folder.root / "odd.csv").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"odd.csv \(CLASSES\): expected lines LabelName,name"):
        folder.open(row("a1"), classes="odd.csv")
    with pytest.raises(FileNotFoundError, match=r"bxes.csv \(ANNOTATIONS\) does not exist. Nearest: .*boxes.csv"):
        OpenImagesDataset(str(folder.root / "images"), str(folder.root / "bxes.csv"))


def test_a_block_and_its_evaluation(folder):
    folder.open(row("a1"), row("a1", "/m/dog", (0.5, 0.7), (0, 1), "1"), row("b2", "/m/dog"))
    block = {
        "FORMAT": "openimages",
        "IMAGES": str(folder.root / "images"),
        "ANNOTATIONS": str(folder.root / "boxes.csv"),
        "CLASSES": str(folder.root / "classes.csv"),
    }
    (dataset,) = build_dataset([block], None, is_train=False)
    predictions = []
    for index in range(2):
        found = dataset.get_groundtruth(index).copy_with_fields("labels")
        found.add_field("scores", torch.full((len(found),), 0.9))
        predictions.append(found)
    # a detection within the group counts neither way
    predictions[0].bbox = torch.cat([predictions[0].bbox, torch.tensor([[55.0, 5, 60, 20]])])
    predictions[0].extra_fields["labels"] = torch.tensor([2, 3])
    predictions[0].extra_fields["scores"] = torch.tensor([0.9, 0.95])
    assert evaluate(dataset, predictions, None).results["bbox"]["AP"] == 1
