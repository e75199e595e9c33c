"""Open Images: boxes in a csv, classes in another, and a folder with a part of the images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets import OpenImagesDataset
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings
from maskrcnn_benchmark.evaluation import evaluate
from maskrcnn_benchmark.structures.bounding_box import BoxList

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


MASK_HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"


@pytest.fixture
def masked(folder):
    """Two cats in a1, of which one has a mask of half the image's size, a dog with one, and a group of dogs."""
    small = np.zeros((25, 50), dtype=np.uint8)
    small[5:15, 5:25] = 255
    full = np.zeros((50, 100), dtype=np.uint8)
    full[10:30, 60:70] = 1
    (folder.root / "png" / "1").mkdir(parents=True)
    Image.fromarray(small).convert("1").save(folder.root / "png" / "1" / "a1_m0cat_1.png")
    Image.fromarray(full).save(folder.root / "png" / "b2_m0dog_2.png")
    rows = [
        MASK_HEADER,
        "a1_m0cat_1.png,a1,/m/cat,1,0.100001,0.500000,0.2,0.6,0.9,",
        "b2_m0dog_2.png,b2,/m/dog,2,0.6,0.7,0.2,0.6,0.9,0.1 0.2 1;0.2 0.3 0",
        "zz_m0dog_3.png,zz,/m/dog,2,0.6,0.7,0.2,0.6,0.9,",
    ]
    (folder.root / "masks.csv").write_text("\n".join(rows) + "\n")
    folder.rows = [
        row("a1", x=(0.6, 0.9)),
        row("a1"),
        row("b2", "/m/dog", (0.6, 0.7)),
        row("b2", "/m/dog", (0.6, 0.71), group="1"),
    ]
    folder.masks = {"masks_file": str(folder.root / "masks.csv"), "mask_dir": str(folder.root / "png")}
    return folder


def test_masks_belong_to_the_box_with_their_sides_and_have_the_images_size(masked):
    dataset = masked.open(*masked.rows, **masked.masks)
    assert boxes(dataset) == [[10, 10, 40, 20]] and boxes(dataset, 1) == [[60, 10, 10, 20]]
    cat, dog = (dataset.get_groundtruth(index).get_field("masks").get_mask_tensor() for index in (0, 1))
    assert cat.shape == (50, 100) and cat.sum() == 20 * 40 and cat[10:30, 10:50].all()
    assert dog.sum() == 10 * 20 and dog[10:30, 60:70].all()
    found = {"crowd regions": 2, "boxes without a mask, read as crowd regions": 1}
    assert counts(dataset) == found and not dataset.report.warnings


def test_masks_are_evaluated(masked):
    dataset = masked.open(*masked.rows, **masked.masks)
    predictions = []
    for index in range(2):
        prediction = dataset.get_groundtruth(index)
        prediction.add_field("mask", prediction.get_field("masks").get_mask_tensor().reshape(1, 1, 50, 100))
        prediction.add_field("scores", torch.ones(1))
        predictions.append(prediction.copy_with_fields(["labels", "scores", "mask"]))
    results = evaluate(dataset, predictions, None, iou_types=("bbox", "segm")).results
    assert results["segm"]["AP"] == pytest.approx(1) and results["bbox"]["AP"] == pytest.approx(1)


def test_masks_that_lack_a_file_a_box_or_pixels_are_counted(masked):
    Image.new("L", (50, 25)).save(masked.root / "png" / "1" / "a1_m0cat_1.png")
    (masked.root / "png" / "b2_m0dog_2.png").unlink()
    dataset = masked.open(row("a1"), row("b2", "/m/dog", (0.6, 0.7)), **masked.masks)
    assert counts(dataset) == {
        "masks without a file in MASK_IMAGES": 1,
        "boxes without a mask, read as crowd regions": 1,
        "masks that are damaged or have no pixel; their boxes are crowd regions": 1,
        "crowd regions": 2,
    }
    (masked.root / "png" / "1" / "a1_m0cat_1.png").write_bytes(b"no image")
    assert "masks that are damaged or have no pixel; their boxes are crowd regions" in counts(
        masked.open(row("a1"), **masked.masks)
    )
    assert "masks that belong to no box" in counts(masked.open(row("a1", "/m/bee"), **masked.masks))


def test_a_mask_goes_to_the_nearest_box(masked):
    dataset = masked.open(row("a1", x=(0.1, 0.51)), row("a1", x=(0.1, 0.503)), row("a1"), **masked.masks)
    assert counts(dataset)["boxes without a mask, read as crowd regions"] == 2 and boxes(dataset) == [[10, 10, 40, 20]]


def test_what_is_wrong_with_masks_is_named(masked):
    with pytest.raises(ValueError, match="both MASKS, their csv, and MASK_IMAGES"):
        masked.open(*masked.rows, masks_file=masked.masks["masks_file"])
    with pytest.raises(FileNotFoundError, match="png2 \\(MASK_IMAGES\\) does not exist"):
        masked.open(*masked.rows, **{**masked.masks, "mask_dir": str(masked.root / "png2")})
    with pytest.raises(FileNotFoundError, match="none of the 2 masks"):
        masked.open(*masked.rows, **{**masked.masks, "mask_dir": str(masked.root / "images")})
    with pytest.raises(ValueError, match="lacks the columns MaskPath"):
        masked.open(*masked.rows, **{**masked.masks, "masks_file": str(masked.root / "boxes.csv")})
    with pytest.raises(ValueError, match="MASKS of the block names the csv of masks"):
        masked.open(masked.rows[0], header=MASK_HEADER)


def test_changed_masks_are_read_again(masked):
    reading = Reading(tables=TableSettings("always"))
    first = masked.open(*masked.rows, **masked.masks, reading=reading)
    before = first.get_groundtruth(1).get_field("masks").get_mask_tensor().sum()
    changed = np.zeros((50, 100), dtype=np.uint8)
    changed[10:30, 60:65] = 1
    Image.fromarray(changed).save(masked.root / "png" / "b2_m0dog_2.png")
    after = masked.open(*masked.rows, **masked.masks, reading=reading).get_groundtruth(1).get_field("masks")
    assert (before, after.get_mask_tensor().sum()) == (200, 100)
    assert len(list((masked.root / ".mb_tables").glob("*.table"))) == 1


HIERARCHY = {
    "LabelName": "/m/0bl9f",
    "Subcategory": [
        {
            "LabelName": "/m/animal",
            "Subcategory": [{"LabelName": "/m/cat"}, {"LabelName": "/m/dog", "Part": [{"LabelName": "/m/bee"}]}],
        },
        {"LabelName": "/m/pet", "Subcategory": [{"LabelName": "/m/cat"}]},
        {"LabelName": "/m/bee"},
    ],
}


@pytest.fixture
def kinds(folder):
    (folder.root / "kinds.csv").write_text(CLASSES + "/m/animal,Animal\n/m/pet,Pet\n")
    (folder.root / "hierarchy.json").write_text(json.dumps(HIERARCHY))
    return {"classes": "kinds.csv", "hierarchy_file": str(folder.root / "hierarchy.json")}


def test_classes_have_all_classes_above_them_but_not_the_root(folder, kinds):
    assert folder.open(row("a1"), **kinds).ancestors() == {2: [4, 5], 3: [4]}
    assert folder.open(row("a1")).ancestors() == {}
    without_names = {**kinds, "classes": None}
    rows = row("a1"), row("a1", "/m/animal", (0.5, 0.9))
    assert folder.open(*rows, **without_names).ancestors() == {2: [1]}


def test_objects_and_detections_count_for_the_classes_above_their_own(folder, kinds):
    rows = row("a1"), row("a1", "/m/dog", (0.6, 0.9)), row("b2", "/m/dog", (0, 0.5), group="1")
    for options, wanted in (
        (kinds, {"Cat, large", "Dog", "Animal", "Pet"}),
        ({"classes": "kinds.csv"}, {"Cat, large", "Dog"}),
    ):
        dataset = folder.open(*rows, **options)
        prediction = dataset.get_groundtruth(0)
        prediction.add_field("scores", torch.tensor([0.9, 0.8]))
        of_group = BoxList([[0, 10, 48, 29]], (100, 50))
        of_group.add_field("labels", torch.tensor([3]))
        of_group.add_field("scores", torch.tensor([0.95]))
        results = evaluate(dataset, [prediction, of_group], str(folder.root / "out"))
        assert results.results["bbox"]["AP"] == pytest.approx(1)
        figures = json.loads((folder.root / "out" / "coco_results.json").read_text())["per_class"]["bbox"]
        found = {entry["name"]: entry for entry in figures if entry["AP"] >= 0}
        assert found.keys() == wanted and all(entry["AP"] == pytest.approx(1) for entry in found.values())
    assert {name: entry["boxes"] for name, entry in found.items()} == {"Cat, large": 1, "Dog": 1}


def test_a_missed_class_costs_the_classes_above_it(folder, kinds):
    dataset = folder.open(row("a1"), row("b2", "/m/dog"), **kinds)
    cat = dataset.get_groundtruth(0)
    cat.add_field("scores", torch.tensor([0.9]))
    evaluate(dataset, [cat, cat[:0]], str(folder.root / "out"))
    figures = json.loads((folder.root / "out" / "coco_results.json").read_text())["per_class"]["bbox"]
    found = {entry["name"]: (entry["boxes"], round(entry["AP"], 2)) for entry in figures if entry["AP"] >= 0}
    assert found == {"Cat, large": (1, 1), "Dog": (1, 0), "Animal": (2, 0.5), "Pet": (1, 1)}


@pytest.mark.parametrize("content", ["{}", "[]", "bees", '{"Subcategory": [{}]}', '{"Subcategory": 3}'])
def test_a_file_that_is_no_hierarchy_is_an_error_at_the_start(folder, content):
    (folder.root / "hierarchy.json").write_text(content)
    with pytest.raises(ValueError, match="HIERARCHY"):
        folder.open(row("a1"), hierarchy_file=str(folder.root / "hierarchy.json"))


def test_a_hierarchy_of_other_classes_is_an_error(folder, kinds):
    other = {"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": "/m/plant"}]}
    (folder.root / "hierarchy.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="has none of the 3 classes"):
        folder.open(row("a1"), hierarchy_file=kinds["hierarchy_file"])


def test_a_block_names_masks_and_hierarchy(masked, kinds):
    masked.open(*masked.rows)
    block = {
        "FORMAT": "openimages",
        "IMAGES": str(masked.root / "images"),
        "ANNOTATIONS": str(masked.root / "boxes.csv"),
        "CLASSES": str(masked.root / "kinds.csv"),
        "MASKS": masked.masks["masks_file"],
        "MASK_IMAGES": masked.masks["mask_dir"],
        "HIERARCHY": kinds["hierarchy_file"],
    }
    (dataset,) = build_dataset([block], None, is_train=False)
    assert dataset.has_masks and dataset.ancestors() == {2: [4, 5], 3: [4]}
