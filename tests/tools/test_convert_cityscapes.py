import json
import runpy
import sys
from pathlib import Path

import pytest
from helpers.cityscapes_tree import write_tree

from maskrcnn_benchmark.data.datasets import COCODataset
from tools.cityscapes.convert_cityscapes_to_coco import convert

TOOL = Path(__file__).resolve().parents[2] / "tools/cityscapes/convert_cityscapes_to_coco.py"


def read(folder, split):
    return json.loads((folder / f"instancesonly_filtered_gtFine_{split}.json").read_text())


@pytest.mark.parametrize("layout", ["gtFine", "gtFine_trainvaltest/gtFine"])
def test_ids_are_consecutive_over_all_splits(tmp_path, capsys, layout):
    tree = write_tree(tmp_path / "tree")
    if layout != "gtFine":
        (tree / "gtFine_trainvaltest").mkdir()
        (tree / "gtFine").rename(tree / layout)
    convert(str(tree), str(tmp_path / "out"))
    val, train, test = (read(tmp_path / "out", split) for split in ("val", "train", "test"))
    assert [image["id"] for content in (val, train, test) for image in content["images"]] == list(range(6))
    assert [a["id"] for content in (val, train, test) for a in content["annotations"]] == list(range(6))
    assert val["images"][0] == {
        "id": 0,
        "width": 96,
        "height": 64,
        "file_name": "munster_000000_000019_leftImg8bit.png",
        "seg_file_name": "munster_000000_000019_gtFine_instanceIds.png",
    }
    names = {category["id"]: category["name"] for category in val["categories"]}
    assert list(names) == list(range(1, 9)) and test["categories"] == train["categories"] == val["categories"]
    # not converted: the caravan (none of the eight classes), groups, and the person of one pixel (no contour)
    assert [names[a["category_id"]] for a in val["annotations"]] == ["rider", "bicycle", "bus"]
    assert [names[a["category_id"]] for a in train["annotations"]] == ["person", "car", "bicycle"]
    assert "2 images, 3 objects; 1 skipped" in capsys.readouterr().out
    person = train["annotations"][0]
    assert (person["bbox"], person["area"], person["iscrowd"]) == ([30, 5, 10, 45], 450, 0)
    (outline,) = person["segmentation"]
    # each pixel of the border once
    assert len(outline) == 2 * (2 * 10 + 2 * 43) and {*outline[::2]} == {*range(30, 40)}


def test_object_in_two_parts_has_two_polygons(tmp_path):
    tree = write_tree(tmp_path / "tree")
    convert(str(tree), str(tmp_path))
    (car,) = [a for a in read(tmp_path, "train")["annotations"] if a["category_id"] == 3]
    assert sorted(min(polygon[::2]) for polygon in car["segmentation"]) == [10, 40]
    assert car["bbox"] == [10, 10, 40, 30] and car["area"] == 40 * 30 - 10 * 30


def test_written_files_are_valid_datasets(tmp_path):
    tree = write_tree(tmp_path)
    convert(str(tree), str(tmp_path))
    dataset = COCODataset(str(tmp_path / "instancesonly_filtered_gtFine_train.json"), str(tree / "images"), True)
    assert len(dataset) == 2 and dataset[0][1].bbox.tolist() == [[30, 5, 39, 49], [10, 10, 49, 39]]


@pytest.fixture
def run(monkeypatch):
    """Function run(*arguments): run the script in this process; return its exit status or message."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(TOOL), run_name="__main__")
        return ended.value.code

    return run


def test_command_line_equals_the_forks(run, tmp_path, capsys):
    assert run() == 1 and "--dataset" in capsys.readouterr().out
    assert run("--dataset", "cocostuff", "--datadir", "a", "--outdir", "b") == "Dataset not supported: cocostuff"
    arguments = ("--dataset", "cityscapes_instance_only", "--datadir", tmp_path)
    assert run(*arguments) == 2 and "--outdir are required" in capsys.readouterr().err
    assert "gtFine_trainvaltest" in run(*arguments, "--outdir", tmp_path)
