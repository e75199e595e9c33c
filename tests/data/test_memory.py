"""Memory of annotations: their arrays, once, independent of epochs and worker processes."""

import gc
import pickle
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings

IMAGES, PER_IMAGE, SIDE = 100, 1000, 24
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def many_objects(tmp_path_factory):
    """Write 100 small images with 100,000 boxes and polygons, and return (folder, json)."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    images = [f'{{"id": {k}, "file_name": "{k}.png", "width": {SIDE}, "height": {SIDE}}}' for k in range(IMAGES)]
    objects = []
    for number, (x, y) in enumerate(rng.integers(0, SIDE - 8, (IMAGES * PER_IMAGE, 2)).tolist()):
        objects.append(
            f'{{"id": {number}, "image_id": {number % IMAGES}, "category_id": 1, "bbox": [{x}, {y}, 8, 8], '
            f'"segmentation": [[{x}, {y}, {x + 8}, {y}, {x + 8}, {y + 8}, {x}, {y + 8}]]}}'
        )
    path = folder / "objects.json"
    content = f'"images": [{", ".join(images)}], "annotations": [{", ".join(objects)}]'
    path.write_text(f'{{{content}, "categories": [{{"id": 1, "name": "thing"}}]}}')
    return folder, path


def reachable(root):
    """Return all objects reachable from `root` once each, except classes, modules and functions."""
    seen, waiting = {}, [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen and not isinstance(thing, (type, ModuleType, FunctionType)):
            seen[id(thing)] = thing
            waiting += gc.get_referents(thing)
    return list(seen.values())


def test_a_dataset_takes_the_memory_of_its_arrays(many_objects):
    folder, path = many_objects
    dataset = COCODataset(str(path), str(folder), True, reading=Reading(tables=TableSettings("never")))
    things = reachable(dataset.__dict__)
    arrays = [thing for thing in things if isinstance(thing, np.ndarray) and thing.base is None]
    in_arrays = sum(array.nbytes for array in arrays)
    boxes = IMAGES * PER_IMAGE
    # box 16 bytes, label 8, four points 32, offsets of points, polygons and runs 24, size of runs 16
    assert boxes * 64 < in_arrays < boxes * 100
    assert sum(map(sys.getsizeof, things)) < 1.05 * in_arrays
    assert len(things) < 20 * IMAGES, "Python objects per box"
    assert len(pickle.dumps(dataset)) < 1.05 * in_arrays


# In a process of its own: workers would gradually copy memory that earlier tests left in this one.
MEASURE = """
import multiprocessing
import sys
from itertools import islice
from pathlib import Path

from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.data import make_data_loader

folder, annotations, side, epochs, batches = *sys.argv[1:3], *map(int, sys.argv[3:])
block = {"FORMAT": "coco", "IMAGES": folder, "ANNOTATIONS": annotations}
cfg.merge_from_list(["DATASETS.TRAIN", [block], "DATALOADER.NUM_WORKERS", 2, "MODEL.DEVICE", "cpu"])
cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", epochs * batches, "INPUT.MIN_SIZE_TRAIN", [side]])


def print_memory():  # bytes that each worker has written itself; shared memory does not count
    for worker in multiprocessing.active_children():
        lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()
        print(1024 * int(next(line.split()[1] for line in lines if line.startswith("Private_Dirty:"))), end=" ")
    print()


loader = iter(make_data_loader(cfg))
begun = 6  # by then each worker has loaded an image and the modules for it
for _ in range(begun):
    next(loader)
print_memory()
for epoch in range(epochs):
    for _ in islice(loader, batches - (epoch == 0) * begun - (epoch == epochs - 1) * 10):
        pass
    print_memory()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="/proc/PID/smaps_rollup does not exist")
def test_worker_processes_do_not_grow_over_epochs(many_objects):
    epochs = 3
    numbers = map(str, (*many_objects, SIDE, epochs, IMAGES // 4))
    done = subprocess.run([sys.executable, "-c", MEASURE, *numbers], text=True, stdout=subprocess.PIPE, check=True)
    sizes = np.array([[int(size) for size in line.split()] for line in done.stdout.splitlines()])
    assert sizes.shape == (1 + epochs, 2), done.stdout
    print("MiB of the workers after some batches and after each epoch:", np.round(sizes / MEGABYTE, 1).tolist())
    first_batch, first_epoch, last = sizes[0], sizes[1], sizes[-1]
    # Measured: at most half a MiB. Lists and dicts would be copied when read, tens of MiB per worker.
    assert (first_epoch - first_batch < 4 * MEGABYTE).all(), "reading annotations copies them"
    assert (last - first_epoch < 2 * MEGABYTE).all(), "a worker grows from epoch to epoch"
