"""The table file of a dataset: used where it fits, rebuilt where it does not, never in the way."""

import json
import logging
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.odd_coco import odd_content
from helpers.samples import assert_same_samples
from PIL import Image

from maskrcnn_benchmark.data.datasets import COCODataset, COCOSemanticDataset, table_cache
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.table_cache import FOLDER, TableSettings
from maskrcnn_benchmark.utils import atomic_write

KEPT = Reading(tables=TableSettings("always"))
MEMORY = Reading(tables=TableSettings("never"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def args(coco_folder):
    """A dataset of three images: one with objects of all kinds, one with a box that sticks out, one without objects."""
    coco_folder.add_image(7, size=(60, 40))
    coco_folder.add_box(7, [5, 6, 10, 20], segmentation=[[5, 6, 15, 6, 15, 26]])
    coco_folder.add_box(7, [20, 6, 10, 20], segmentation={"counts": [0, 2400], "size": [40, 60]})
    coco_folder.add_box(7, [30, 6, 10, 20], iscrowd=1, segmentation={"counts": [100, 200, 2100], "size": [40, 60]})
    coco_folder.add_image(8, size=(50, 30))
    coco_folder.add_box(8, [40, 10, 30, 10])
    coco_folder.add_image(9, size=(30, 30))
    return {**coco_folder.write(), "remove_images_without_annotations": False}


def tables_of(args) -> list[Path]:
    return sorted((Path(args["ann_file"]).parent / FOLDER).glob("*.table"))


def test_a_second_start_maps_the_table_and_looks_at_no_image(args, reads, caplog):
    first = COCODataset(**args, reading=KEPT)
    for path in Path(args["root"]).iterdir():
        path.rename(path.with_suffix(".away"))
    with caplog.at_level(logging.INFO):
        second = COCODataset(**args, reading=KEPT)
    assert reads == ["boxes"] and str(second.report) in caplog.text
    assert first.table_file == second.table_file == str(tables_of(args)[0])
    assert str(first.report) == str(second.report) and "1 crowd region (annotation ids 3;" in str(second.report)
    assert second.ids == [7, 8, 9] and second.get_img_info(1) == first.get_img_info(1)


@pytest.mark.parametrize("kind", [COCODataset, COCOSemanticDataset])
@pytest.mark.parametrize("training", [True, False])
def test_odd_files_give_the_same_samples_from_a_table(tmp_path, make_coco_folder, rng_seed, kind, training):
    for round_number in range(3):
        folder = make_coco_folder(str(round_number))
        content = odd_content(np.random.default_rng((rng_seed, round_number)), folder)
        path = folder.root / "odd.json"
        path.write_text(
            json.dumps(content, default=lambda value: value.decode() if isinstance(value, bytes) else str(value))
        )
        args = path, folder.root / "images", training
        try:
            wanted = kind(*args, reading=MEMORY)
        except ValueError as error:
            for _ in range(2):
                with pytest.raises(ValueError) as same:
                    kind(*args, reading=KEPT)
                assert str(same.value) == str(error)
            continue
        for _ in range(2):
            found = kind(*args, reading=KEPT)
            assert found.table_file and wanted.table_file is None
            assert_same_samples(found, wanted)
        assert_same_samples(pickle.loads(pickle.dumps(found)), wanted)


def test_other_settings_have_other_tables(args, reads):
    for reading in (KEPT, Reading(crowd_as_objects=True, tables=TableSettings("always"))):
        for training in (False, True):
            for images in (None, ImageSettings(exif_rotation="stored")):
                args["remove_images_without_annotations"] = training
                COCODataset(**args, reading=reading, images=images)
    assert len(tables_of(args)) == len(reads) == 8
    COCODataset(**args, reading=Reading(keypoint_flip_pairs=[], crowd_as_objects=True, tables=TableSettings("always")))
    assert len(reads) == 8, "pairs are applied to the table"
    assert len(COCOSemanticDataset(**args, reading=KEPT)) == 2 and len(tables_of(args)) == len(reads) == 9


def test_changed_annotations_are_read_again(args, coco_folder, reads):
    COCODataset(**args, reading=KEPT)
    coco_folder.add_box(8, [5, 6, 10, 10])
    coco_folder.write()
    assert len(COCODataset(**args, reading=KEPT)[1][1]) == 2
    assert len(reads) == 2 and len(tables_of(args)) == 1


def test_touched_and_copied_annotations_are_the_same(args, reads):
    COCODataset(**args, reading=KEPT)
    path = Path(args["ann_file"])
    os.utime(path, (1, 1))
    COCODataset(**args, reading=KEPT)
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    COCODataset(**args, reading=KEPT)
    assert len(reads) == 1
    path.write_text(path.read_text().replace("[5, 6, 10, 20]", "[5, 6, 10, 21]"))  # of the same size
    COCODataset(**args, reading=KEPT)
    assert len(reads) == 2


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    middle = len(data) // 2
    spoiled = {
        "cut": data[:middle],
        "empty": b"",
        "zeroed": data[:-64] + bytes(64),
        "of another kind": b"P6 1 1 255 abc" * 100,
        "without a header": data[:8] + bytes(len(data) - 8),
    }
    path.write_bytes(spoiled[how])


@pytest.mark.parametrize("how", ["cut", "empty", "zeroed", "of another kind", "without a header"])
def test_a_torn_table_is_rebuilt(args, reads, how, caplog):
    COCODataset(**args, reading=KEPT)
    (path,) = tables_of(args)
    spoil(path, how)
    with caplog.at_level(logging.INFO):
        assert len(COCODataset(**args, reading=KEPT)) == 3
    assert len(reads) == 2 and f"table {path} is not used" in caplog.text
    COCODataset(**args, reading=KEPT)
    assert len(reads) == 2


def test_a_table_of_another_dataset_or_version_is_rebuilt(args, make_coco_folder, reads, monkeypatch):
    other = make_coco_folder("other")
    other.add_image(1)
    other.add_box(1, [1, 2, 10, 10])
    others = {**other.write(), "remove_images_without_annotations": False}
    COCODataset(**args, reading=KEPT), COCODataset(**others, reading=KEPT)
    tables_of(args)[0].write_bytes(tables_of(others)[0].read_bytes())
    assert len(COCODataset(**args, reading=KEPT)) == 3 and len(reads) == 3
    monkeypatch.setattr(table_cache, "reader_version", lambda: "of tomorrow")
    COCODataset(**args, reading=KEPT)
    assert len(reads) == 4


def test_small_files_have_no_table_unless_asked_for(args):
    assert COCODataset(**args).table_file is None and not tables_of(args)
    assert COCODataset(**args, reading=MEMORY).table_file is None
    with pytest.raises(ValueError, match="DATASETS.TABLE is one of 'auto', 'always', 'never', got 'yes'"):
        TableSettings("yes")


def test_tables_go_to_the_given_folder(args, tmp_path):
    reading = Reading(tables=TableSettings("always", str(tmp_path / "tables")))
    assert COCODataset(**args, reading=reading).table_file.startswith(str(tmp_path / "tables" / "boxes.json."))


def unwritable(monkeypatch, *folders):
    """Make folders read-only; chmod does not keep root out."""
    access, makedirs = os.access, os.makedirs
    inside = lambda path: any(str(path).startswith(str(folder)) for folder in folders)  # noqa: E731

    def refuse(path, *args, **kwargs):
        if inside(path):
            raise OSError(30, "Read-only file system", str(path))
        makedirs(path, *args, **kwargs)

    monkeypatch.setattr(os, "makedirs", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: not inside(path) and access(path, mode))


def test_a_read_only_data_folder_has_its_table_in_the_cache(args, home, reads, monkeypatch):
    unwritable(monkeypatch, Path(args["ann_file"]).parent / FOLDER)
    for _ in range(2):
        assert COCODataset(**args, reading=KEPT).table_file.startswith(str(home))
    assert len(reads) == 1 and not tables_of(args)


def test_without_any_place_the_table_stays_in_memory(args, home, reads, monkeypatch, caplog):
    unwritable(monkeypatch, Path(args["ann_file"]).parent / FOLDER, home)
    dataset = COCODataset(**args, reading=KEPT)
    assert dataset.table_file is None and len(dataset[0][1]) == 2
    assert "DATASETS.TABLE_DIR names another folder" in caplog.text


def test_a_full_disk_leaves_the_table_in_memory(args, monkeypatch, caplog):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table_cache, "write_arrays", fail)
    dataset = COCODataset(**args, reading=KEPT)
    assert dataset.table_file is None and len(dataset[0][1]) == 2 and "No space left" in caplog.text


def test_file_systems_without_locks_leave_the_table_in_memory(args, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def fail(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fail)
    assert COCODataset(**args, reading=KEPT).table_file is None


def test_a_changed_image_names_the_file_and_the_command(args):
    dataset = COCODataset(**args, reading=KEPT)
    path = Path(dataset.path(0))
    Image.new("RGB", (30, 20)).save(path)
    with pytest.raises(RuntimeError) as error:
        dataset[0]
    message = str(error.value)
    assert str(path) in message and "30 x 20 now and was 60 x 40" in message
    assert f"python tools/dataset_table.py --rebuild {tables_of(args)[0]}" in message
    path.unlink()
    with pytest.raises(RuntimeError, match="--rebuild"):
        dataset[0]


def test_warnings_of_the_first_reading_come_at_every_start(coco_folder, caplog):
    coco_folder.add_image(1)
    for k in range(4):
        coco_folder.add_box(1, [5 * k, 6, 10, 20], iscrowd=k % 2)
    args = {**coco_folder.write(), "remove_images_without_annotations": True, "reading": KEPT}
    COCODataset(**args)
    caplog.clear()
    COCODataset(**args, name="wasps")
    assert "dataset wasps: 2 of 2 crowd regions (iscrowd 1) look like single objects" in caplog.text


def test_a_file_that_nothing_can_be_trained_on_fails_at_every_start(coco_folder):
    coco_folder.add_image(1)
    args = {**coco_folder.write(), "remove_images_without_annotations": True, "reading": KEPT}
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing is left to train on"):
            COCODataset(**args)


def start_at_once(args, barrier, results):
    barrier.wait()
    dataset = COCODataset(**args, reading=KEPT)
    results.put((len(dataset), dataset.table_file, dataset[0][1].bbox.tolist()))


def test_processes_that_start_at_once_share_one_table(args):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=start_at_once, args=(args, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    (path,) = tables_of(args)
    assert found == [(3, str(path), found[0][2])] * 4
    assert os.listdir(path.parent) == [path.name], "locks and unfinished files are removed"


def read_again_and_again(args, reading_begins):
    reading_begins.set()
    while True:
        COCODataset(**args, reading=KEPT, rebuild=True)


def test_a_first_reading_that_is_killed_leaves_nothing_broken(args, rng_seed):
    rng = np.random.default_rng(rng_seed)
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        begins = context.Event()
        process = context.Process(target=read_again_and_again, args=(args, begins))
        process.start()
        assert begins.wait(60)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join(60)
        dataset = COCODataset(**args, reading=KEPT)
        assert [len(target) for _, target, _ in dataset] == [2, 1, 0]
    atomic_write._cleaned.clear()  # as in a new process
    dataset = COCODataset(**args, reading=KEPT, rebuild=True)
    assert os.listdir(Path(dataset.table_file).parent) == [Path(dataset.table_file).name]


def test_a_process_does_not_wait_for_ever(args, monkeypatch, caplog):
    fcntl = pytest.importorskip("fcntl")
    path = COCODataset(**args, reading=KEPT).table_file
    os.remove(path)
    monkeypatch.setattr(table_cache, "PATIENCE", 0.3)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dataset = COCODataset(**args, reading=KEPT)
    assert dataset.table_file != path and len(dataset[0][1]) == 2 and "has been held for" in caplog.text
