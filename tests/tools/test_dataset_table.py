"""tools/dataset_table.py: what a table holds, whether it fits its images, and rebuilding it."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.coco_folder import CocoFolder
from PIL import Image

from maskrcnn_benchmark.data.datasets import COCODataset, COCOSemanticDataset
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.stored_tables import open_stored, verify_images
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings

TOOL = Path(__file__).parents[2] / "tools" / "dataset_table.py"
KEPT = Reading(crowd_as_objects=True, tables=TableSettings("always"))


@pytest.fixture
def folder(tmp_path):
    folder = CocoFolder(tmp_path)
    for number in range(1, 6):
        folder.add_image(number)
        folder.add_box(number, [5, 6, 10, 20], segmentation=[[5, 6, 15, 6, 15, 26]])
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.add_image(6, size=(50, 20), json_size=(20, 50), exif=exif)
    folder.add_box(6, [1, 2, 9, 30], segmentation=[[1, 2, 10, 2, 10, 32]])
    return folder


@pytest.mark.parametrize("kind", [COCODataset, COCOSemanticDataset])
def test_a_dataset_opens_from_its_table_alone(folder, kind, monkeypatch):
    images = ImageSettings(value_range=(0, 4095))
    made = kind(**folder.write(), remove_images_without_annotations=True, name="bees", reading=KEPT, images=images)
    found = open_stored(made.table_file)
    assert type(found) is kind and found.table_file == made.table_file and str(found.report) == str(made.report)
    assert found.image_settings == images and found.reading.crowd_as_objects


def test_images_are_compared_with_the_table(folder):
    dataset = COCODataset(**folder.write(), remove_images_without_annotations=False, reading=KEPT)
    assert list(verify_images(dataset)) == []
    Image.new("RGB", (9, 8)).save(dataset.path(0))
    data = Path(dataset.path(1)).read_bytes()
    Path(dataset.path(1)).write_bytes(data[:-9])
    Path(dataset.path(2)).unlink()
    Image.new("RGB", (50, 20)).save(dataset.path(5))  # not to be turned any more
    found = dict(verify_images(dataset))
    assert found.keys() == {0, 1, 2, 5} and "FileNotFoundError" in found[2]
    assert found[0] == "9 x 8, was 60 x 40" and found[1] == "truncated, was complete"
    assert found[5] == "50 x 20, was 20 x 50"


def run(*args):
    command = [sys.executable, str(TOOL), *map(str, args)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_the_tool_verifies_and_rebuilds(folder):
    dataset = COCODataset(**folder.write(), remove_images_without_annotations=False, reading=KEPT)
    path = Path(dataset.table_file)
    status, text = run("--verify", path)
    assert status == 0 and "0 of 6 images are not as the table says" in text and dataset.ann_file in text
    Image.new("RGB", (30, 20)).save(dataset.path(0))
    folder.images[0] |= {"width": 30, "height": 20}
    status, text = run("--verify", path)
    assert status == 1 and f"{dataset.path(0)}: 30 x 20, was 60 x 40" in text
    folder.write()
    status, text = run("--rebuild", path)
    assert status == 0 and "6 images, 6 boxes" in text and run("--verify", path)[0] == 0
    path.write_bytes(b"bees")
    status, text = run(path)
    assert status == 1 and "is not a file of arrays" in text and "Traceback" not in text
