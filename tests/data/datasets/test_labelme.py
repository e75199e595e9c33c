"""LabelMe folders: what the json files may hold, and which image belongs to each."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets import LabelMeDataset
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.evaluation import evaluate

SQUARE = [[10, 5], [30, 5], [30, 25], [10, 25]]


def shape(points, label="cat", kind="polygon", **more) -> dict:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def write(root, name, shapes, size=(100, 50), image="{}.jpg", **more) -> None:
    path = root / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if image:
        Image.new("RGB", size).save(path.parent / image.format(path.stem))
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{path.stem}.jpg",
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
    }
    path.write_text(json.dumps({**content, **more}))


def boxes(dataset, index=0):
    return dataset.get_groundtruth(index).convert("xywh").bbox.tolist()


def counts(dataset) -> dict[str, int]:
    return {f.what: f.count for action in ("dropped", "repaired", "noted") for f in dataset.report.findings(action)}


def mask_of(dataset, index=0, place=0) -> np.ndarray:
    return dataset.get_groundtruth(index).get_field("masks")[place].get_mask_tensor().numpy()


def test_polygons_rectangles_and_circles(tmp_path):
    write(
        tmp_path,
        "a",
        [
            shape(SQUARE),
            shape([[60, 40], [50, 20]], "dog", "rectangle"),
            shape([[70, 25], [73, 29]], "dog", "circle"),
            shape(SQUARE[:3], "ant", None),  # before version 3
        ],
    )
    dataset = LabelMeDataset(tmp_path)
    assert (dataset.class_names, dataset.ids) == (["ant", "cat", "dog"], ["a"])
    assert boxes(dataset) == [[10, 5, 20, 20], [50, 20, 10, 20], [65, 20, 10, 10], [10, 5, 20, 20]]
    assert dataset.get_groundtruth(0).get_field("labels").tolist() == [2, 3, 3, 1]
    assert mask_of(dataset, place=2).sum() == pytest.approx(np.pi * 25, rel=0.05)


def test_a_folder_of_rectangles_has_no_masks(tmp_path):
    write(tmp_path, "a", [shape([[60, 40], [50, 20]], "dog", "rectangle")])
    dataset = LabelMeDataset(tmp_path)
    assert not dataset.has_masks and counts(dataset) == {}


def test_shapes_of_a_group_are_one_object(tmp_path):
    other = [[x + 40, y] for x, y in SQUARE]
    write(
        tmp_path,
        "a",
        [
            shape(SQUARE, group_id=1),
            shape(other, group_id=1),
            shape(other, "dog", group_id=1),
            shape([[0, 0], [5, 5]], group_id=2, kind="rectangle"),
        ],
    )
    dataset = LabelMeDataset(tmp_path)
    assert boxes(dataset) == [[10, 5, 60, 20], [50, 5, 20, 20], [0, 0, 5, 5]]
    assert counts(dataset) == {"shapes joined with others of their label and group_id": 1}
    assert mask_of(dataset).sum() == 2 * 400


def test_a_mask_is_a_png_within_its_box(tmp_path):
    window = np.zeros((21, 11), dtype=np.uint8)
    window[5:, 3:] = 255
    file = io.BytesIO()
    Image.fromarray(window).save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    points = [[20, 10], [30, 30]]
    write(tmp_path, "a", [shape(points, kind="mask", mask=png), shape(points, kind="mask", mask="torn")])
    dataset = LabelMeDataset(tmp_path)
    expected = np.zeros((50, 100), dtype=bool)
    expected[15:31, 23:31] = True
    assert boxes(dataset)[0] == [20, 10, 11, 21] and (mask_of(dataset) == expected).all()
    assert counts(dataset)["broken RLE masks"] == 1


@pytest.mark.parametrize(
    ("bad", "finding"),
    [
        (shape([[1, 2]], kind="point"), "points and lines, which are no objects"),
        (shape([[1, 2], [9, 9], [20, 2]], kind="linestrip"), "points and lines, which are no objects"),
        (shape(SQUARE, "__ignore__"), "shapes labelled __ignore__ or _background_"),
        (shape(SQUARE, None), "shapes without a label"),
        (shape(SQUARE[:2]), "shapes whose points are too few or not finite numbers"),
        (shape([[1, 2], [3], [9, 9]]), "shapes whose points are too few or not finite numbers"),
        (shape([[1, 2], [float("nan"), 3], [9, 9]]), "shapes whose points are too few or not finite numbers"),
        (shape(None), "shapes whose points are too few or not finite numbers"),
        (shape([[200, 90], [220, 95], [210, 99]]), "boxes outside the image"),
        (shape([[5, 5], [5, 25], [5, 9]]), "boxes without area (at most one pixel wide or high)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_shape_is_dropped_and_counted(tmp_path, bad, finding):
    write(tmp_path, "a", [shape(SQUARE), bad])
    dataset = LabelMeDataset(tmp_path)
    assert boxes(dataset) == [[10, 5, 20, 20]] and counts(dataset) == {finding: 1} and "a.json#2" in str(dataset.report)


def test_given_classes_decide_the_labels(tmp_path):
    write(tmp_path, "a", [shape(SQUARE, "1"), shape(SQUARE, "cat"), shape(SQUARE, "dog")])
    dataset = LabelMeDataset(tmp_path, class_names=["dog", "cat"])
    assert dataset.get_groundtruth(0).get_field("labels").tolist() == [2, 1]
    assert counts(dataset)["annotations of unknown categories"] == 1 and "label '1'" in str(dataset.report)


@pytest.mark.parametrize(
    "path", ["..\\pictures\\a.jpg", "C:\\data\\a.jpg", "/home/me/a.jpg", "A.JPG", "a.jpg", "old.jpg", "", None]
)
def test_the_image_is_found_whatever_the_path(tmp_path, path):
    write(tmp_path, "sub/a", [shape(SQUARE)], imagePath=path)
    dataset = LabelMeDataset(tmp_path)
    assert dataset.path(0) == str(tmp_path / "sub" / "a.jpg") and dataset.ids == ["sub/a"]


def test_a_backslash_leads_to_another_folder(tmp_path):
    write(tmp_path / "json", "a", [shape(SQUARE)], image=None, imagePath="..\\pictures\\a.jpg")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (100, 50)).save(tmp_path / "pictures" / "a.jpg")
    assert len(LabelMeDataset(tmp_path / "json", None, True)) == 1
    assert len(LabelMeDataset(tmp_path / "json", tmp_path / "pictures", True)) == 1


def test_a_missing_image_is_an_error_and_embedded_ones_are_named(tmp_path):
    write(tmp_path, "a", [shape(SQUARE)], image=None)
    with pytest.raises(FileNotFoundError, match="1 of 1 images are missing .*a.jpg"):
        LabelMeDataset(tmp_path)
    write(tmp_path, "a", [shape(SQUARE)], image=None, imageData="/9j/4AAQ" * 100)
    with pytest.raises(FileNotFoundError, match="a.jpg. Their json files embed them"):
        LabelMeDataset(tmp_path)


def test_other_files_of_the_folder_and_images_without_shapes(tmp_path):
    write(tmp_path, "a", [shape(SQUARE)])
    write(tmp_path, "b", [])
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "annotations": []}))
    dataset = LabelMeDataset(tmp_path, None, True, reading=Reading(keep_empty_images=True))
    assert dataset.ids == ["a", "b"] and counts(dataset)["json files that are not LabelMe's"] == 1
    assert LabelMeDataset(tmp_path, None, True).ids == ["a"]


def test_a_split_names_its_files(tmp_path):
    for name in "abc":
        write(tmp_path, name, [shape(SQUARE, name)])
    (tmp_path / "val.txt").write_text("images\\c.jpg\na.json\nb\n"[:-2])
    dataset = LabelMeDataset(tmp_path, split_file=str(tmp_path / "val.txt"))
    assert dataset.ids == ["a", "c"] and dataset.class_names == ["a", "b", "c"]
    (tmp_path / "val.txt").write_text("a\nz\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 lines of .*val.txt \(SPLIT\) name no json file: z"):
        LabelMeDataset(tmp_path, split_file=str(tmp_path / "val.txt"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings(tmp_path, encoding):
    write(tmp_path, "a", [shape(SQUARE, "Käfer")])
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text(), encoding=encoding)
    assert LabelMeDataset(tmp_path).class_names == ["Käfer"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "a.json is not JSON"), ('{"shapes": 3}', "'shapes' of .*a.json is 3"), ("{}", "has no LabelMe json")],
)
def test_a_broken_json_is_an_error(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        LabelMeDataset(tmp_path)


def test_another_size_than_the_image_is_an_error(tmp_path):
    write(tmp_path, "a", [shape(SQUARE)], imageWidth=200, imageHeight=100)
    with pytest.raises(ValueError, match="SIZE_MISMATCH: scale"):
        LabelMeDataset(tmp_path)


def test_a_block_and_its_evaluation(tmp_path):
    write(tmp_path, "a", [shape(SQUARE), shape([[60, 40], [50, 20]], "dog", "rectangle")])
    block = {"FORMAT": "labelme", "ANNOTATIONS": str(tmp_path), "CLASSES": "dog, cat"}
    (dataset,) = build_dataset([block], None, is_train=False)
    assert dataset.class_names == ["dog", "cat"]
    found = dataset.get_groundtruth(0).copy_with_fields("labels")
    found.add_field("scores", torch.tensor([0.9, 0.8]))
    found.add_field("mask", torch.stack([torch.from_numpy(mask_of(dataset, place=k)) for k in (0, 1)])[:, None])
    results = evaluate(dataset, [found], None, iou_types=("bbox", "segm")).results
    assert results["bbox"]["AP"] == results["segm"]["AP"] == 1
