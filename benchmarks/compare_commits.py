"""Time two commits against each other in two alternating processes; see README.md in this folder for the protocol.

    python benchmarks/compare_commits.py OLD [NEW] [--processes 5] [--turns 3] [--only training] [--keep-memory]

Each commit is checked out into a temporary folder and timed with its own benchmark scripts. A case is timed in several
pairs of processes, with some turns each, because processes of one commit differ, too: where the C library places maps
decides how many page faults an image costs. The result is the median over all turns of old time / new time, with its
95 % bootstrap interval, drawn by pair of processes. A case passes if the median is at least the limit or the interval
reaches 1. The peak memory of training steps is compared in the same way.

The exit status is 1 if a case fails, otherwise 0.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "maskrcnn_benchmark"
FAST_LIMIT, PLAIN_LIMIT, MEMORY_LIMIT = 0.97, 0.9, 1.05
BOOTSTRAP = 2000
TRAINING_BATCH = 2

# group -> names of its cases
GROUPS = {
    "models": ("fcos", "faster", "mask", "V-39", "V-57"),
    "plain": ("fcos", "mask", "V-39"),
    "training": ("fcos", "faster", "mask"),
    "compiled": ("faster", "fcos"),
    "profile": ("R-50", "V-39"),
}
DTYPES = ("float32", "bfloat16")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default="HEAD")
    parser.add_argument("--processes", type=int, default=5, help="pairs of processes for each case")
    parser.add_argument("--turns", type=int, default=3, help="turns of each pair")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=GROUPS, nargs="+", default=list(GROUPS))
    parser.add_argument("--keep-memory", action="store_true", help="KEEP_FREED_MEMORY on both sides")
    parser.add_argument("--json", type=Path, help="write every time to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.threads, arguments.keep_memory)
    rows, passed = [], True
    with checkouts(arguments.old, arguments.new) as folders:
        print(f"old {describe(arguments.old)}\nnew {describe(arguments.new)}")
        memory = ", keeping freed memory" if arguments.keep_memory else ""
        turns = f"{arguments.turns} turns in each of {arguments.processes} pairs of processes"
        print(f"{turns}, {arguments.threads} threads{memory}, load before {os.getloadavg()[0]:.1f}\n")
        print("| case | old ms | new ms | old / new | 95 % interval | limit | |\n|---|---|---|---|---|---|---|")
        for group in arguments.only:
            for case in GROUPS[group]:
                for row in compare(folders, group, case, arguments):
                    rows.append(row)
                    passed &= row["passed"]
                    print(as_line(row), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows))
    return 0 if passed else 1


@contextlib.contextmanager
def checkouts(*commits: str) -> Iterator[list[Path]]:
    """Check the commits out into a temporary folder and build their ops; yield the two folders."""
    with tempfile.TemporaryDirectory() as parent:
        folders = []
        try:
            for name, commit in zip(("old", "new"), commits, strict=True):
                folder = Path(parent) / name
                subprocess.run(["git", "worktree", "add", "-q", "--detach", folder, commit], cwd=ROOT, check=True)
                folders.append(folder)
                for built in [*(ROOT / PACKAGE).glob("*.so"), *(ROOT / PACKAGE).glob("_build*")]:
                    shutil.copy(built, folder / PACKAGE)
                build = [sys.executable, "-m", f"{PACKAGE}.utils.build_ops", "--if-changed"]
                subprocess.run(build, cwd=folder, check=True, capture_output=True, env=environment(folder))
            yield folders
        finally:
            for folder in folders:
                subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=False)


def describe(commit: str) -> str:
    command = ["git", "log", "-1", "--format=%h %cs %s", commit]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(folder / "benchmarks")))}


class Worker:
    """Process that times the code of one commit in `folder`."""

    def __init__(self, folder: Path, threads: int, keep_memory: bool):
        command = [sys.executable, str(Path(__file__).resolve()), "-", "--worker", "--threads", str(threads)]
        command += ["--keep-memory"] if keep_memory else []
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()

    def ask(self, **request):
        """Send a request to the process and return its answer."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the worker of {self.process.args} ended with status {self.process.wait()}")
        return json.loads(answer)


def compare(folders: list[Path], group: str, case: str, arguments: argparse.Namespace) -> Iterator[dict]:
    """Time one case of both commits in several pairs of alternating processes; yield a row for each of its figures."""
    pairs = []
    for _ in range(arguments.processes):
        with contextlib.ExitStack() as stack:
            workers = [
                stack.enter_context(Worker(folder, arguments.threads, arguments.keep_memory)) for folder in folders
            ]
            names = [worker.ask(prepare=[group, case]) for worker in workers][0]
            pairs.append({name: take_turns(workers, name, arguments.turns) for name in names})
    for name in names:
        for figure in pairs[0][name][0][0]:
            times = [
                [[run[figure] for run in side if figure in run] for side in sides]
                for sides in (pair[name] for pair in pairs)
            ]
            label = f"{group} {case} {name}" + (f": {figure}" if figure != "time" else "")
            yield judge(label, figure, times, PLAIN_LIMIT if group == "plain" else FAST_LIMIT)


def take_turns(workers: list[Worker], name: str, turns: int) -> tuple[list[dict], list[dict]]:
    """Run one case in alternation; return the figures of every turn, old and new."""
    figures: tuple[list[dict], list[dict]] = ([], [])
    for turn in range(turns):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            figures[side].append(workers[side].ask(run=name))
    return figures


def judge(label: str, figure: str, times: list[list[list[float]]], limit: float) -> dict:
    """Compute the median of old / new over all pairs of processes, its 95 % interval, and whether it passes.

    Args:
        label: name of the case.
        figure: name of the figure.
        times: for each pair of processes, the figures of the old and of the new commit, one per turn.
        limit: lowest median that passes.
    """
    is_memory = figure == "peak memory"
    ratios = [[a / b for a, b in zip(old, new, strict=True) if b > 0] or [1.0] for old, new in times]
    draws = sorted(
        statistics.median(x for one in random.choices(ratios, k=len(ratios)) for x in random.choices(one, k=len(one)))
        for _ in range(BOOTSTRAP)
    )
    low, high = draws[int(0.025 * BOOTSTRAP)], draws[int(0.975 * BOOTSTRAP)]
    ratio = statistics.median(itertools.chain(*ratios))
    old, new = ([x for pair in times for x in pair[side]] for side in (0, 1))
    limit = 1 / MEMORY_LIMIT if is_memory else limit
    # parts of a profile have no limit, because a faster part may make another one slower
    judged = figure in ("time", "peak memory")
    return {
        "case": label,
        "old": statistics.median(old),
        "new": statistics.median(new),
        "ratio": ratio,
        "interval": [low, high],
        "limit": limit if judged else None,
        "passed": not judged or ratio >= limit or high >= 1,
        "times": times,
    }


def as_line(row: dict) -> str:
    limit = "" if row["limit"] is None else f"{row['limit']:.2f}"
    low, high = row["interval"]
    verdict = "" if row["passed"] else "FAILS"
    figures = f"{row['old']:.0f} | {row['new']:.0f} | {row['ratio']:.3f} | {low:.3f} to {high:.3f}"
    return f"| {row['case']} | {figures} | {limit} | {verdict} |"


# The rest runs inside a worker, with the package and the benchmark scripts of one commit on the path.


def work(threads: int, keep_memory: bool) -> int:
    """Answer requests from stdin until it is closed."""
    sys.path.remove(str(Path(__file__).resolve().parent))  # the scripts in this folder are of another commit
    import torch

    if keep_memory:
        from maskrcnn_benchmark.utils.kept_memory import keep_freed_memory

        keep_freed_memory()
    torch.set_num_threads(threads)
    answers, sys.stdout = sys.stdout, sys.stderr  # scripts may print
    sides: dict[str, Callable[[], dict]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            torch.manual_seed(0)
            sides = prepare(*request["prepare"])
            for side in sides.values():
                side()
            answer = list(sides)
        else:
            answer = sides[request["run"]]()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def prepare(group: str, case: str) -> dict[str, Callable[[], dict]]:
    """Return functions by name that run one turn and return its figures, in milliseconds (memory in MiB)."""
    import compiled_cpu
    import models_cpu
    import profile_cpu
    import torch
    import training_cpu

    image = torch.rand(3, models_cpu.HEIGHT, models_cpu.WIDTH)
    file = models_cpu.BODIES[case] if case in models_cpu.BODIES else models_cpu.PAIRS[case][0]
    kind = "fcos" if case == "fcos" else "faster"
    if group == "models":
        return timed(zip(DTYPES, models_cpu.our_sides(file, kind, image), strict=True))
    if group == "plain":
        model = models_cpu.our_model(file, kind, image)
        return timed([("float32", lambda: models_cpu.detect(model, image))])
    if group == "training":
        images = [torch.rand(3, training_cpu.SIDE, training_cpu.SIDE) for _ in range(TRAINING_BATCH)]
        objects = [training_cpu.make_objects() for _ in images]
        steps = training_cpu.our_steps(case, images, objects)
        return {dtype: with_memory(step) for dtype, step in zip(DTYPES, steps, strict=True)}
    if group == "compiled":
        model = models_cpu.our_model(file, kind, image).requires_grad_(False)
        dtypes = {name: getattr(torch, name) for name in DTYPES}
        makers = [
            (name, compiled_cpu.torch_side(model, "head", image[None], dtype, compiled=True))
            for name, dtype in dtypes.items()
        ]
        return timed(makers)
    side = models_cpu.our_sides(file, kind, image)[0]
    return {"float32": lambda: profiled(profile_cpu.measure(side, 1, "wall"))}


def profiled(parts: dict[str, tuple[float, int]]) -> dict[str, float]:
    """Return the milliseconds of the parts of a profile, and their sum as the time that is judged."""
    milliseconds_of = {part: seconds * 1e3 for part, (seconds, _) in parts.items()}
    return milliseconds_of | {"time": sum(milliseconds_of.values())}


def timed(sides) -> dict[str, Callable[[], dict]]:
    return {name: lambda side=side: {"time": milliseconds(side)} for name, side in sides}


def with_memory(side: Callable[[], object]) -> Callable[[], dict]:
    def run() -> dict:
        clear = Path("/proc/self/clear_refs")
        with contextlib.suppress(OSError):
            clear.write_text("5")  # resets the peak
        taken = {"time": milliseconds(side)}
        with contextlib.suppress(OSError):
            status = Path("/proc/self/status").read_text()
            taken["peak memory"] = int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1024
        return taken

    return run


def milliseconds(side: Callable[[], object]) -> float:
    start = time.perf_counter()
    side()
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    sys.exit(main())
