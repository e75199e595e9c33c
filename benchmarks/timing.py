"""Shared code of the benchmark scripts: interleaved timing in one process, and the name of the machine."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

import torch
import torchvision

from maskrcnn_benchmark.native import library
from maskrcnn_benchmark.native.collect_env import cpu_flags, cpu_name
from maskrcnn_benchmark.utils.kept_memory import keep_freed_memory

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds(function: Callable[[], object], clock: str = "wall") -> float:
    now = CLOCKS[clock]
    start = now()
    function()
    return now() - start


def medians(sides: Sequence[Callable[[], object]], repeats: int, clock: str = "wall") -> list[float]:
    """Return the median milliseconds of each side, after one warm-up run each.

    The sides are interleaved, so that a busy period of the machine affects all of them.

    Args:
        sides: functions to time.
        repeats: runs of each side.
        clock: "wall", or "cpu": the CPU time of all threads of this process. With one thread, it equals the time of a
            run on an idle machine. With several threads, spinning threads count, too.
    """
    for side in sides:
        side()
    turns = [[seconds(side, clock) for side in sides] for _ in range(repeats)]
    return [sorted(times)[repeats // 2] * 1e3 for times in zip(*turns, strict=True)]


def positive(text: str) -> int:
    """Parse an integer of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def add_options(parser: argparse.ArgumentParser, repeats: int) -> None:
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--repeats", type=positive, default=repeats)
    parser.add_argument("--keep-memory", action="store_true", help="KEEP_FREED_MEMORY for both sides")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: CPU time of all threads")


def begin(arguments: argparse.Namespace) -> None:
    """Set threads and seed, and print the machine and the versions.

    Raises:
        SystemExit: the compiled ops are missing.
    """
    if not library.declared():
        raise SystemExit(f"no compiled ops to time: {library.REASONS['cpu']}")
    torch.set_num_threads(arguments.threads)
    if arguments.keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    half = [name for name in ("avx512_bf16", "amx_bf16") if name in cpu_flags()]
    print(f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}, bfloat16 by {' and '.join(half) or 'neither'}")
    load = f"{os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    kept = ", freed memory kept" if arguments.keep_memory else ""
    print(f"{arguments.threads} threads, {arguments.clock} time, load before {load}{kept}")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, median of {arguments.repeats}\n")
