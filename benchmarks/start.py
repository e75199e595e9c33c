"""Time the import of the package and the build of its ops; see README.md in this folder for the protocol.

    python benchmarks/start.py [--build] [--repeats 5]

--build compiles everything into a temporary folder. BUILD_CUDA=1 adds the CUDA kernels, for the architectures in
TORCH_CUDA_ARCH_LIST.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timing

from maskrcnn_benchmark.native import build_ops

IMPORTS = {
    "torch": "torch",
    "and maskrcnn_benchmark": "torch, maskrcnn_benchmark",
    "and models": "torch, maskrcnn_benchmark.modeling.detector",
    "and all of training and testing": (
        "torch, maskrcnn_benchmark.modeling.detector, maskrcnn_benchmark.engine.trainer, "
        "maskrcnn_benchmark.engine.testing, maskrcnn_benchmark.engine.launch"
    ),
}
CODE = "import time; start = time.{clock}(); import {modules}; print(time.{clock}() - start)"


def import_seconds(modules: str, clock: str) -> float:
    code = CODE.format(modules=modules, clock={"wall": "perf_counter", "cpu": "process_time"}[clock])
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=timing.positive, default=5)
    parser.add_argument("--clock", choices=sorted(timing.CLOCKS), default="wall")
    parser.add_argument("--build", action="store_true")
    arguments = parser.parse_args()
    print(f"{timing.cpu_name()}, {arguments.clock} time, median of {arguments.repeats}\n\n| import | s |\n|---|---|")
    turns = [
        [import_seconds(modules, arguments.clock) for modules in IMPORTS.values()] for _ in range(arguments.repeats)
    ]
    for title, seconds in zip(IMPORTS, zip(*turns, strict=True), strict=True):
        print(f"| {title} | {statistics.median(seconds):.2f} |")
    if arguments.build:
        with tempfile.TemporaryDirectory() as folder:
            start, before = time.perf_counter(), os.times()
            report = build_ops.build(target=Path(folder))
            wall, after = time.perf_counter() - start, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        print(f"\n{build_ops.describe(report)}\nbuilt in {wall:.0f} s; CPU time of the compilers {cpu:.0f} s")


if __name__ == "__main__":
    main()
