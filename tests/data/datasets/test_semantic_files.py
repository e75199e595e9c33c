import json

import numpy as np
import pytest
from helpers.semantic_folder import SemanticFolder

from maskrcnn_benchmark.data.datasets.file_lists import IMAGE_ENDINGS
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.semantic_files import find_images_with_maps, read_class_names


@pytest.fixture
def folder(tmp_path):
    folder = SemanticFolder(tmp_path)
    for name in ("2007_000032", "city/b", "c d"):
        folder.add(name, np.zeros((2, 2)))
    return folder


def names_in(folder, text=None, **more):
    split_file = None
    if text is not None:
        split_file = folder.root / "list.txt"
        split_file.write_text(text, encoding="utf-8-sig")
    report = DatasetReport("test")
    return [
        pair.name for pair in find_images_with_maps(str(folder.images), str(folder.maps), split_file, report, **more)
    ]


@pytest.mark.parametrize(
    "line",
    [
        "2007_000032",
        "2007_000032.jpg",
        "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png",
        "2007_000032.jpg\t2007_000032.png",
        "images\\2007_000032.jpg  maps\\2007_000032.png",
    ],
)
def test_lists_name_images_or_files_of_image_and_map(folder, line):
    assert names_in(folder, f"{line}\r\n\r\ncity/b\n# a comment\n") == ["2007_000032", "city/b"]


def test_list_order_is_kept_and_names_may_contain_spaces(folder):
    assert names_in(folder, "c d\n2007_000032\nc d\n") == ["c d", "2007_000032"]
    assert names_in(folder) == ["2007_000032", "c d", "city/b"]


def test_an_empty_or_missing_list_is_an_error(folder):
    with pytest.raises(ValueError, match="names no image"):
        names_in(folder, "\n")
    with pytest.raises(FileNotFoundError, match="no_list.txt does not exist"):
        find_images_with_maps(str(folder.images), str(folder.maps), "no_list.txt", DatasetReport("test"))
    with pytest.raises(FileNotFoundError, match="have no image in .*: 2009_1"):
        names_in(folder, "2007_000032\n2009_1\n")


def test_two_images_with_one_name_are_an_error(folder):
    folder.add("2007_000032", np.zeros((2, 2)))
    (folder.images / "2007_000032.jpeg").write_bytes((folder.images / "2007_000032.jpg").read_bytes())
    with pytest.raises(ValueError, match="have the same name"):
        names_in(folder)


@pytest.mark.parametrize("ending", IMAGE_ENDINGS)
def test_images_may_have_any_image_ending(folder, ending):
    folder.write_map("x.png", np.zeros((2, 2)))
    (folder.images / f"x{ending}").touch()
    assert "x" in names_in(folder)


def test_images_and_maps_may_share_a_folder(tmp_path):
    folder = SemanticFolder(tmp_path)
    folder.maps = folder.images
    folder.add("a", np.zeros((2, 2)))
    assert names_in(folder) == ["a"]


def test_class_names_come_from_text_and_json(tmp_path):
    def read(content, name="names.txt"):
        (tmp_path / name).write_text(content)
        return read_class_names(str(tmp_path / name))

    assert read("road\ntraffic light\n\n") == (["road", "traffic light"], None)
    assert read("7 road\n19: traffic light\n") == (["road", "traffic light"], [7, 19])
    assert read("0\n1\n") == (["0", "1"], None)
    assert read(json.dumps(["a", "b"]), "names.json") == (["a", "b"], None)
    assert read(json.dumps({"3": "a", "5": "b"}), "names.json") == (["a", "b"], [3, 5])
    coco = {"categories": [{"id": 4, "name": "cat", "isthing": 1}, {"id": 2, "name": "dog"}]}
    assert read(json.dumps(coco), "names.json") == (["cat", "dog"], [4, 2])
    with pytest.raises(ValueError, match="names no class"):
        read("\n")
    with pytest.raises(ValueError, match="expected a list of names"):
        read("{", "names.json")
