import importlib.util
import json
import sys

import numpy as np
import pytest
from helpers.warm_start import ROOT, Script
from PIL import Image

from maskrcnn_benchmark.data import digits
from maskrcnn_benchmark.data.datasets import COCODataset

# Importing it takes a second, in every process that collects the tests.
has_scikit_learn = importlib.util.find_spec("sklearn") is not None
pytestmark = pytest.mark.skipif(not has_scikit_learn, reason="scikit-learn is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits"
    assert digits.make_digits(path, train=30, test=10, size=128)
    return path


def test_both_splits_are_read_without_findings(folder):
    for split, count in (("train", 30), ("test", 10)):
        dataset = COCODataset(str(folder / f"annotations/instances_{split}.json"), str(folder / split), True)
        assert len(dataset) == count and dataset.class_names == list("0123456789")
        assert [dataset.report.findings(action) for action in ("dropped", "repaired", "noted")] == [[], [], []]


def test_boxes_masks_and_semantic_maps_agree_exactly(folder):
    from pycocotools import mask as run_lengths

    content = json.loads((folder / "annotations/instances_train.json").read_text())
    assert len(content["annotations"]) > 40
    semantic = {
        image["id"]: np.asarray(Image.open(folder / "semantic/train" / image["file_name"].replace("jpg", "png")))
        for image in content["images"]
    }
    painted = {image_id: np.zeros_like(map_) for image_id, map_ in semantic.items()}
    for annotation in content["annotations"]:
        mask = run_lengths.decode(annotation["segmentation"]).astype(bool)
        rows, columns = np.nonzero(mask)
        x, y, width, height = annotation["bbox"]
        assert (columns.min(), rows.min()) == (x, y)
        assert (columns.max(), rows.max()) == (x + width - 1, y + height - 1)
        assert mask.sum() == annotation["area"]
        assert (semantic[annotation["image_id"]][mask] == annotation["category_id"]).all()
        painted[annotation["image_id"]][mask] = annotation["category_id"]
    for image_id, map_ in semantic.items():
        assert np.array_equal(map_, painted[image_id])


def test_scenes_depend_on_the_seed(tmp_path, folder):
    digits.make_digits(tmp_path / "again", train=30, test=10, size=128)
    for path in sorted(folder.rglob("*.*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes(), path
    digits.make_digits(tmp_path / "other", train=1, test=1, size=128, seed=1)
    assert (folder / "train/000000.jpg").read_bytes() != (tmp_path / "other/train/000000.jpg").read_bytes()


def test_scenes_do_not_depend_on_their_number(tmp_path, folder):
    digits.make_digits(tmp_path / "few", train=3, test=1, size=128)
    assert (tmp_path / "few/train/000002.jpg").read_bytes() == (folder / "train/000002.jpg").read_bytes()


def test_a_single_scene_lies_beside_its_objects(tmp_path):
    digits.write_scene(tmp_path / "new" / "scene.jpg", size=96, seed=3)
    dataset = COCODataset(str(tmp_path / "new/scene.json"), str(tmp_path / "new"), True)
    image, target, _ = dataset[0]
    assert image.size == (96, 96) and len(target) >= 1 and dataset.class_names == list("0123456789")
    before = (tmp_path / "new/scene.jpg").read_bytes()
    digits.write_scene(tmp_path / "new/scene.jpg", size=96, seed=3)
    assert (tmp_path / "new/scene.jpg").read_bytes() == before
    for name, size in (("scene.json", 96), ("small.jpg", 10)):
        with pytest.raises(ValueError, match=f"got .*{name} and {size}"):
            digits.write_scene(tmp_path / name, size=size)


def test_train_and_test_share_neither_digits_nor_backgrounds():
    train, _, train_photographs = digits._sources("train")
    test, _, test_photographs = digits._sources("test")
    assert len(train) + len(test) == 1797
    assert not {d.tobytes() for d in train} & {d.tobytes() for d in test}
    for left, right in zip(train_photographs, test_photographs, strict=True):
        assert left.shape[1] + right.shape[1] == 640 and min(left.shape[1], right.shape[1]) > 150


def test_a_second_call_changes_nothing(folder):
    before = (folder / "train/000000.jpg").stat().st_mtime_ns
    assert not digits.make_digits(folder, train=30, test=10, size=128)
    assert (folder / "train/000000.jpg").stat().st_mtime_ns == before


def test_an_older_generated_dataset_is_replaced(tmp_path):
    digits.make_digits(tmp_path / "d", train=2, test=1, size=64)
    assert digits.make_digits(tmp_path / "d", train=1, test=2, size=64)
    assert {path.name for path in (tmp_path / "d/train").iterdir()} == {"000000.jpg"}
    (tmp_path / "d/test/000001.jpg").unlink()
    assert digits.make_digits(tmp_path / "d", train=1, test=2, size=64)  # incomplete: generated again
    assert (tmp_path / "d/test/000001.jpg").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_foreign_files_are_not_changed(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="notes.txt"):
        digits.make_digits(tmp_path, train=1, test=1, size=64)
    digits.make_digits(tmp_path / "d", train=1, test=1, size=64)
    (tmp_path / "d/train/holiday.jpg").write_text("mine")
    with pytest.raises(FileExistsError, match="train/holiday.jpg"):
        digits.make_digits(tmp_path / "d", train=2, test=1, size=64)
    assert (tmp_path / "d/train/holiday.jpg").read_text() == "mine"


def test_an_interrupted_run_leaves_nothing_behind(tmp_path):
    def interrupt(done, total):
        assert (done, total) == (1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digits.make_digits(tmp_path / "d", train=1, test=1, size=64, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".d.partial/train").mkdir(parents=True)
    (tmp_path / ".d.partial/train/000007.jpg").write_text("half an image")
    assert digits.make_digits(tmp_path / "d", train=1, test=1, size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert {path.name for path in (tmp_path / "d/train").iterdir()} == {"000000.jpg"}


def test_invalid_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="train must be at least 1, got 0"):
        digits.make_digits(tmp_path / "d", train=0)


def test_without_scikit_learn_the_error_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        digits.make_digits(tmp_path / "d", train=1, test=1, size=64)
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path):
    words = [ROOT / "tools" / "make_digits.py", "--output", "d", "--train", "2", "--test", "1", "--size"]
    first = Script([*words, 64], tmp_path).wait()
    assert first.returncode == 0, first.stderr
    assert first.stdout == "d: 2 training and 1 test images of 64x64\n"
    (tmp_path / "d/mine.txt").write_text("x")
    refused = Script([*words, 96], tmp_path).wait()
    assert refused.returncode == 1 and "mine.txt" in refused.stderr and "Traceback" not in refused.stderr
