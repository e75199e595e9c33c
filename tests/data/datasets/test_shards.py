"""Images in tar files: the samples of a folder, or a clear error."""

import io
import multiprocessing
import os
import pickle
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.samples import assert_same_samples
from PIL import Image

from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data.datasets import COCODataset, COCOSemanticDataset, shards
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.shards import ShardIndex, shard_paths
from maskrcnn_benchmark.data.datasets.stored_tables import verify_images
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings

KEPT, MEMORY = (Reading(tables=TableSettings(mode)) for mode in ("always", "never"))
COUNT = 4


def pack(images: Path, folder: Path, kind=tarfile.PAX_FORMAT, prefix="") -> str:
    """Write the images of a folder to shards, each with a json beside it, in an order of their own."""
    folder.mkdir(exist_ok=True)
    names = sorted(os.listdir(images))
    random.Random(0).shuffle(names)
    for number in range(COUNT):
        with tarfile.open(folder / f"{number:06d}.tar", "w", format=kind) as archive:
            for name in names[number::COUNT]:
                archive.add(images / name, prefix + name)
                note = tarfile.TarInfo(f"{prefix}{Path(name).stem}.json")
                note.size = 2
                archive.addfile(note, io.BytesIO(b"{}"))
            readme = tarfile.TarInfo("README")
            archive.addfile(readme, io.BytesIO())
    return str(folder / f"{{000000..{COUNT - 1:06d}}}.tar")


@pytest.fixture
def args(coco_folder):
    rng = np.random.default_rng(0)
    for number in range(1, 12):
        size = tuple(rng.integers(30, 90, 2).tolist())
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 5 else 1
        kind = {"exif": exif} if number in (4, 5) else {}
        name = f"{number}.png" if number % 3 == 0 else f"{number:0{12 if number < 9 else 150}d}.jpg"
        coco_folder.add_image(number, size, json_size=size[::-1] if number == 5 else size, file_name=name, **kind)
        coco_folder.add_box(number, [1, 2, 20, 9], segmentation=[[1, 2, 21, 2, 21, 11]])
    deep = np.arange(3000, dtype=np.uint16).reshape(50, 60) * 20
    Image.fromarray(deep).save(coco_folder.root / "images" / "3.png")
    coco_folder.images[2] |= {"width": 60, "height": 50}
    return {**coco_folder.write(), "remove_images_without_annotations": False}


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("reading", [KEPT, MEMORY])
@pytest.mark.parametrize("dataset", [COCODataset, COCOSemanticDataset])
def test_samples_are_those_of_a_folder(args, tmp_path, kind, reading, dataset):
    in_folder = dataset(**args, reading=MEMORY)
    args["root"] = pack(Path(args["root"]), tmp_path / "shards", kind)
    for _ in range(2):
        in_shards = dataset(**args, reading=reading)
        assert_same_samples(in_shards, in_folder)
    assert_same_samples(pickle.loads(pickle.dumps(in_shards)), in_folder)
    assert list(verify_images(in_shards)) == []
    assert in_shards.path(0).startswith(str(tmp_path / "shards")) and in_shards.path(0).endswith("000000000001.jpg")


def test_a_block_of_a_config_names_shards(args, tmp_path):
    root = pack(Path(args["root"]), tmp_path / "shards")
    block = {"FORMAT": "coco", "IMAGES": "shards/{000000..000003}.tar", "ANNOTATIONS": args["ann_file"]}
    assert DatasetCatalog.get(block, str(tmp_path))["args"]["root"] == root
    os.remove(tmp_path / "shards" / "000002.tar")
    with pytest.raises(FileNotFoundError, match="IMAGES shards/"):
        DatasetCatalog.get(block, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="1 of 4 shards of .* do not exist: .*000002.tar"):
        shard_paths(root)


def test_names_with_other_folders_are_found_and_counted(args, tmp_path):
    args["root"] = pack(Path(args["root"]), tmp_path / "shards", prefix="./train2017/")
    dataset = COCODataset(**args)
    assert dataset.report.count("image names found in another spelling, or another folder, in the shards") == 11
    assert dataset.get_img_info(0)["file_name"] == "train2017/000000000001.jpg" and len(dataset[0][1]) == 1


def test_missing_images_are_named(args, tmp_path, coco_folder):
    args["root"] = pack(Path(args["root"]), tmp_path / "shards")
    coco_folder.images.append({"id": 99, "file_name": "000000000100.jpg"})
    coco_folder.write()
    message = "1 of 12 images are in none of the 4 shards .*: 000000000100.jpg. The shards have 26 files, 0000.*.jpg"
    with pytest.raises(FileNotFoundError, match=message):
        COCODataset(**args)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_shard_is_refused(args, tmp_path, kept):
    args["root"] = pack(Path(args["root"]), tmp_path / "shards")
    path = tmp_path / "shards" / "000001.tar"
    data = path.read_bytes()
    length = len(data.rstrip(b"\0"))
    path.write_bytes(data[: int(kept * length)])
    with pytest.raises(OSError, match=rf"shard {path} (ends early|is broken or incomplete|is no tar file)"):
        COCODataset(**args)


def test_a_shard_without_its_end_is_refused(args, tmp_path):
    args["root"] = pack(Path(args["root"]), tmp_path / "shards")
    path = tmp_path / "shards" / "000001.tar"
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + last.size])
    with pytest.raises(OSError, match="no header or end of the archive after"):
        ShardIndex([str(path)])


def test_a_broken_header_is_refused(args, tmp_path):
    pack(Path(args["root"]), tmp_path / "shards")
    path = tmp_path / "shards" / "000001.tar"
    with tarfile.open(path) as archive:
        second = archive.getmembers()[1].offset
    data = bytearray(path.read_bytes())
    data[second + 20] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(OSError, match="no header or end of the archive after|is no tar file, or a broken one"):
        ShardIndex([str(path)])


def test_what_is_no_tar_file_is_refused(tmp_path):
    (tmp_path / "a.tar").write_text("bees and wasps " * 100)
    with pytest.raises(OSError, match="a.tar is no tar file"):
        ShardIndex([str(tmp_path / "a.tar")])
    with pytest.raises(ValueError, match="a.tar.gz is compressed"):
        shard_paths(str(tmp_path / "a.tar.gz"))


def test_a_shard_that_is_cut_later_is_an_error_of_its_images(args, tmp_path):
    args["root"] = pack(Path(args["root"]), tmp_path / "shards")
    dataset = COCODataset(**args, reading=KEPT)
    os.truncate(tmp_path / "shards" / "000002.tar", 600)
    failed = []
    for index in range(len(dataset)):
        try:
            dataset[index]
        except RuntimeError as error:
            failed.append(str(error))
    assert failed and all("000002.tar ends early: it lacks a part of" in message for message in failed)


def test_other_shards_have_another_table(args, tmp_path, caplog):
    images = Path(args["root"])
    args["root"] = pack(images, tmp_path / "shards")
    table = COCODataset(**args, reading=KEPT).table_file
    pack(images, tmp_path / "shards", prefix="later/")
    with caplog.at_level("INFO"):
        dataset = COCODataset(**args, reading=KEPT)
    assert dataset.table_file == table and "the shards of its images have changed" in caplog.text
    assert dataset.get_img_info(0)["file_name"].startswith("later/") and len(dataset[0][1]) == 1


def read_all(dataset):
    return [np.asarray(dataset[index][0]).sum() for index in range(len(dataset))]


def test_threads_and_forked_processes_read_at_once(args, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "OPEN", 2)
    args["root"] = pack(Path(args["root"]), tmp_path / "shards")
    dataset = COCODataset(**args)
    wanted = read_all(dataset)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(read_all, [dataset] * 9) == [wanted] * 9
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read_all, [dataset] * 8)) == [wanted] * 8
