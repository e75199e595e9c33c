"""Time the first reading and later starts of a COCO dataset beside pycocotools, and measure the memory of both.

    python benchmarks/make_coco_like.py /tmp/coco_like
    python benchmarks/annotation_table.py /tmp/coco_like                 # three turns of each side
    python benchmarks/annotation_table.py /tmp/coco_like_10 --repeats 1 --alone
    python benchmarks/annotation_table.py /tmp/coco_like --workers 16    # memory of loader workers over an epoch
    python benchmarks/annotation_table.py /tmp/coco_like --formats       # the table as .npy files, and as Arrow IPC

Every measurement is a process of its own, and the sides take turns. A first reading parses the json, reads the headers
of all images, checks both and writes the table; pycocotools parses the json and makes its index. Memory is resident
memory; "beyond import" leaves out what `import torch`, or `import pycocotools`, took before. PSS shares a page among
the processes that map it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURED = """
import json, os, re, sys, time

def memory(key):
    return int(re.search(key + r":\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024

{imports}
before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
{code}
result = {{"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": memory("VmHWM")}}
print(json.dumps({{**result, "after": memory("VmRSS"), "beyond": memory("VmRSS") - before}}))
"""
OURS = (
    "import torch\nfrom maskrcnn_benchmark.data.datasets import COCODataset\n"
    "from maskrcnn_benchmark.data.datasets.reading import Reading\n"
    "from maskrcnn_benchmark.data.datasets.table_cache import TableSettings",
    "dataset = COCODataset({json!r}, {images!r}, True, reading=Reading(tables=TableSettings('always', {tables!r})))",
)
PYCOCOTOOLS = (
    "from pycocotools.coco import COCO",
    "sys.stdout = sys.stderr; COCO({json!r}); sys.stdout = sys.__stdout__",
)

WORKERS = """
import json, multiprocessing, re, sys, time
import torch
from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.data import make_data_loader

def pss():
    workers = multiprocessing.active_children()
    rollups = [open(f"/proc/{{worker.pid}}/smaps_rollup").read() for worker in workers]
    return sum(int(re.search(r"Pss:\\s*(\\d+)", rollup)[1]) for rollup in rollups) / 1024

block = {{"FORMAT": "coco", "IMAGES": {images!r}, "ANNOTATIONS": {json!r}}}
cfg.merge_from_list(["DATASETS.TRAIN", [block], "DATALOADER.NUM_WORKERS", {workers}, "MODEL.DEVICE", "cpu"])
cfg.merge_from_list(["DATASETS.TABLE", "always", "DATASETS.TABLE_DIR", {tables!r}, "MODEL.MASK_ON", True])
cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 16, "SOLVER.MAX_ITER", 10**6, "INPUT.MIN_SIZE_TRAIN", [64]])
loader = make_data_loader(cfg)
epoch = len(loader.dataset) // 16
batches = iter(loader)
for _ in range(4 * {workers}):
    next(batches)
first, start = pss(), time.perf_counter()
for _ in range(epoch):
    next(batches)
print(json.dumps({{"first": first, "last": pss(), "seconds": time.perf_counter() - start, "images": 16 * epoch}}))
"""


def run(code: str) -> dict:
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"a measurement ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(side: tuple[str, str], **places) -> dict:
    imports, code = side
    return run(MEASURED.format(imports=imports, code=code.format(**places)))


def starts(folder: Path, repeats: int, with_peer: bool) -> None:
    """Print the medians of first readings, later starts and pycocotools."""
    tables = tempfile.mkdtemp(prefix="tables-", dir=folder)
    places = {"json": str(folder / "instances.json"), "images": str(folder / "images"), "tables": tables}
    found: dict[str, list[dict]] = {"pycocotools": [], "first reading": [], "later start": []}
    try:
        for _ in range(repeats):
            shutil.rmtree(tables)
            found["first reading"].append(measured(OURS, **places))
            if with_peer:
                found["pycocotools"].append(measured(PYCOCOTOOLS, **places))
            found["later start"].append(measured(OURS, **places))
        size = sum(entry.stat().st_size for entry in os.scandir(tables)) / 1e6
    finally:
        shutil.rmtree(tables, ignore_errors=True)
    print(
        f"{places['json']}: {os.path.getsize(places['json']) / 1e6:,.0f} MB; table {size:,.0f} MB; median of {repeats}"
    )
    print("| | seconds | CPU seconds | peak MB | MB afterwards | MB beyond import |\n|---|---|---|---|---|---|")
    for side, turns in ((side, turns) for side, turns in found.items() if turns):
        medians = [sorted(turn[key] for turn in turns)[repeats // 2] for key in turns[0]]
        print(
            f"| {side} | {medians[0]:.2f} | {medians[1]:.2f} | {' | '.join(f'{value:,.0f}' for value in medians[2:])} |"
        )


def workers(folder: Path, count: int) -> None:
    """Print the PSS of loader workers after their first batches and an epoch later."""
    with tempfile.TemporaryDirectory(prefix="tables-", dir=folder) as tables:
        places = {"json": str(folder / "instances.json"), "images": str(folder / "images"), "tables": tables}
        found = run(WORKERS.format(workers=count, **places))
    growth = found["last"] - found["first"]
    print(f"{count} workers, {found['images']:,} images in {found['seconds']:.0f} s")
    print(f"PSS of all together: {found['first']:,.0f} MB after the first batches, {growth:+,.0f} MB after an epoch")


OPENED = {
    "one file (ours)": (
        "import numpy as np\nfrom maskrcnn_benchmark.utils.array_file import ArrayFile",
        "arrays = ArrayFile({path!r}, check=False).arrays",
    ),
    "one file, checksums compared": (
        "import numpy as np\nfrom maskrcnn_benchmark.utils.array_file import ArrayFile",
        "arrays = ArrayFile({path!r}).arrays",
    ),
    ".npy files": ("import numpy as np", "arrays = [np.load(f.path, mmap_mode='r') for f in os.scandir({npy!r})]"),
    "Arrow IPC, import included": (
        "import numpy as np",
        "import pyarrow as pa\n"
        "batches = [pa.ipc.open_file(pa.memory_map(f.path)).get_batch(0) for f in os.scandir({arrow!r})]\n"
        "arrays = [batch.column(0).to_numpy(zero_copy_only=True) for batch in batches]",
    ),
}


def formats(folder: Path, repeats: int) -> None:
    """Print the time and memory of opening the arrays of a table in three formats."""
    import numpy as np

    from maskrcnn_benchmark.utils.array_file import ArrayFile

    with tempfile.TemporaryDirectory(prefix="tables-", dir=folder) as tables:
        places = {"json": str(folder / "instances.json"), "images": str(folder / "images"), "tables": tables}
        measured(OURS, **places)
        (path,) = (entry.path for entry in os.scandir(tables))
        made = {"path": path, "npy": os.path.join(tables, "npy"), "arrow": os.path.join(tables, "arrow")}
        sides = dict(OPENED)
        os.mkdir(made["npy"]), os.mkdir(made["arrow"])
        for name, array in ArrayFile(path).arrays.items():
            np.save(os.path.join(made["npy"], f"{name}.npy"), array)
        try:
            import pyarrow as pa
        except ImportError:
            print("pyarrow is not installed: without Arrow IPC")
            del sides["Arrow IPC, import included"]
        else:
            for name, array in ArrayFile(path).arrays.items():
                flat = array.reshape(-1).view(np.uint8) if array.dtype == bool else array.reshape(-1)
                batch = pa.record_batch([pa.array(flat)], names=[name])
                with pa.ipc.new_file(os.path.join(made["arrow"], f"{name}.arrow"), batch.schema) as writer:
                    writer.write_batch(batch)
        print(f"opening the arrays of {path}, median of {repeats}")
        print("| | ms | MB beyond import |\n|---|---|---|")
        turns = [{name: measured(side, **made) for name, side in sides.items()} for _ in range(repeats)]
        for name in sides:
            seconds, beyond = (sorted(turn[name][key] for turn in turns)[repeats // 2] for key in ("seconds", "beyond"))
            print(f"| {name} | {1e3 * seconds:.1f} | {beyond:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of make_coco_like.py")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--alone", action="store_true", help="without pycocotools, for sizes that its memory exceeds")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--workers", type=int, metavar="N", help="measure N loader workers over an epoch instead")
    action.add_argument("--formats", action="store_true", help="measure formats of the table instead")
    args = parser.parse_args()
    if args.workers:
        workers(args.folder, args.workers)
    elif args.formats:
        formats(args.folder, args.repeats)
    else:
        starts(args.folder, args.repeats, not args.alone)


if __name__ == "__main__":
    main()
