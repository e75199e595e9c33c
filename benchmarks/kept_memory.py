"""Measure the time and memory of KEEP_FREED_MEMORY on images of changing sizes, in alternating processes.

python benchmarks/kept_memory.py [--only V-39] [--pictures 24] [--turns 2] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

import timing
import torch
from models_cpu import BODIES, detect, our_model
from training_cpu import BATCH_SIZE, SIDE, make_objects, our_steps

from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.utils.kept_memory import keep_freed_memory

SIZES = [(800, 1088), (800, 1216), (832, 800), (672, 1344), (800, 992), (1088, 800)]  # sizes of a photo dataset
WHAT = {
    "V-39": "Faster R-CNN V-39",
    "R-50": "Faster R-CNN R-50",
    "training": "Mask R-CNN R-50, training steps",
}


def runs(what: str) -> Iterator[Callable[[], object]]:
    """Yield functions that predict one image or run one training step, endlessly."""
    if what == "training":
        images = [torch.rand(3, SIDE, SIDE) for _ in range(BATCH_SIZE)]
        step = our_steps("mask", images, [make_objects() for _ in images])[0]
        while True:
            yield step
    model = for_inference(our_model(BODIES[what], "faster", torch.rand(3, *SIZES[0])))
    for size in cycle(SIZES):
        yield partial(detect, model, torch.rand(3, *size))


def measure(what: str, count: int) -> dict[str, float]:
    """Return median milliseconds, page faults per image or step, and the peak resident memory in MiB."""
    steps = runs(what)
    next(steps)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    times = [timing.seconds(next(steps)) for _ in range(count)]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms": statistics.median(times) * 1e3,
        "faults": (usage.ru_minflt - before) / count,
        "MiB": usage.ru_maxrss / 1024,  # from KiB
    }


def in_a_process(what: str, kept: bool, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--only", what, "--pictures", str(arguments.pictures), "--alone"]
    command += ["--threads", str(arguments.threads), *(["--keep-memory"] if kept else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=WHAT, default=None)
    parser.add_argument("--pictures", type=timing.positive, default=24, help="images or steps per process")
    parser.add_argument("--turns", type=timing.positive, default=2, help="processes with and without the setting")
    parser.add_argument("--threads", type=timing.positive, default=2)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # runs one measurement
    parser.add_argument("--keep-memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        if arguments.keep_memory and not keep_freed_memory():
            raise SystemExit("the C library of this system cannot keep freed memory")
        print(json.dumps(measure(arguments.only, arguments.pictures)))
        return
    load = f"load before {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    print(f"{timing.cpu_name()}, {arguments.threads} threads, {load}, torch {torch.__version__}")
    print(f"median of {arguments.turns} processes of {arguments.pictures} images or steps\n")
    print("| float32 | ms, freed | kept | ratio | page faults, freed | kept | peak MiB, freed | kept |")
    print("|---|---|---|---|---|---|---|---|")
    for what, title in WHAT.items():
        if arguments.only in (None, what):
            turns = [[in_a_process(what, kept, arguments) for kept in (False, True)] for _ in range(arguments.turns)]
            back, kept = (
                {figure: statistics.median(run[figure] for run in side) for figure in side[0]}
                for side in zip(*turns, strict=True)
            )
            times = f"{back['ms']:.0f} | {kept['ms']:.0f} | {kept['ms'] / back['ms']:.2f}"
            pairs = " | ".join(f"{side[figure]:,.0f}" for figure in ("faults", "MiB") for side in (back, kept))
            print(f"| {title} | {times} | {pairs} |", flush=True)


if __name__ == "__main__":
    main()
