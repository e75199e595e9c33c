"""Time the first reading of a YOLO folder (label files and image headers), and a later start from its table.

    python benchmarks/yolo_reading.py --images 100000

One small JPEG is linked under every name, so that the folder takes little space. The peer is the plainest loop in
Python that parses the same lines, without image headers, checks or a table. Both run in one process, interleaved.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from pathlib import Path

from PIL import Image

from maskrcnn_benchmark.data.datasets import YOLODataset
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings

LINKS = 30_000  # hard links of one file; file systems have a limit


def make_folder(root: Path, images: int, objects: int) -> Path:
    """Write `images` label files of `objects` lines, as many links to a JPEG, and data.yaml; return its path."""
    rng = random.Random(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for k in range(images):
        if k % LINKS == 0:
            source = root / "images" / f"{k:07}.jpg"
            Image.new("RGB", (64, 48), (90, 90, 90)).save(source)
        else:
            os.link(source, root / "images" / f"{k:07}.jpg")
        lines = []
        for _ in range(objects):
            x, y = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)
            w, h = rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.4)
            lines.append(f"{rng.randrange(80)} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n")
        (root / "labels" / f"{k:07}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text("train: images\nnc: 80\n")
    return root / "data.yaml"


def plain_loop(folder: Path) -> int:
    count = 0
    for name in os.listdir(folder):
        with open(folder / name) as file:
            for line in file:
                count += len([float(word) for word in line.split()]) == 5
    return count


def timed(action) -> tuple[float, float, int]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--objects", type=int, default=7, help="lines of each label file")
    parser.add_argument("--folder", help="where the files are written; default: a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        data_file = make_folder(Path(folder) / "bees", args.images, args.objects)

        def start(rebuild: bool) -> int:
            reading = Reading(tables=TableSettings("always"))
            return len(YOLODataset(str(data_file), "train", True, reading=reading, rebuild=rebuild))

        readings = {
            "plain loop over the lines": lambda: plain_loop(data_file.parent / "labels"),
            "first reading, headers and checks": lambda: start(True),
            "later start": lambda: start(False),
        }
        for round_number in (1, 2):
            for what, action in readings.items():
                wall, cpu, count = timed(action)
                print(f"round {round_number}: {what:<38} {cpu:6.1f} s of CPU, {wall:6.1f} s, {count:,}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory of the process: {peak:.2f} GB")


if __name__ == "__main__":
    main()
