"""Time two simultaneous trainings on one machine against one alone; see README.md in this folder.

    python benchmarks/two_trainings.py [--threads 2] [--repeats 5] [--seconds 5] [--spin]

Runs alone and together alternate in the same processes. --spin keeps OpenMP's default, threads that spin while they
wait.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from statistics import median

from maskrcnn_benchmark.engine import process

CONFIG = os.path.join(os.path.dirname(__file__), "..", "configs", "quick", "fcos_digits.yaml")
SIDE, IMAGES = 160, 4


def work(threads: int) -> None:
    """Read numbers of seconds from stdin; for each, train that long and print the steps per second."""
    import torch

    from maskrcnn_benchmark.config import cfg as defaults
    from maskrcnn_benchmark.engine.training_step import TrainingStep
    from maskrcnn_benchmark.modeling.detector import build_detection_model
    from maskrcnn_benchmark.solver import make_optimizer
    from maskrcnn_benchmark.structures.bounding_box import BoxList
    from maskrcnn_benchmark.structures.image_list import to_image_list

    torch.set_num_threads(threads)
    cfg = defaults.clone()
    cfg.merge_from_file(CONFIG)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.FCOS.NUM_CLASSES", 11])
    model = build_detection_model(cfg).train()
    step = TrainingStep(model, make_optimizer(cfg, model), torch.device("cpu"), torch.float32, 0.0)
    target = BoxList([[10.0, 10, 60, 60], [50.0, 40, 100, 110]], (SIDE, SIDE))
    target.add_field("labels", torch.tensor([1, 2]))
    batch = [(to_image_list(torch.randn(IMAGES, 3, SIDE, SIDE)), (target,) * IMAGES, tuple(range(IMAGES)))]

    def train(seconds: float) -> float:
        steps, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            step.accumulate(batch)
            step.update()
            steps += 1
        return steps / (time.perf_counter() - begin)

    train(0.1)
    print("ready", flush=True)
    for line in sys.stdin:
        print(train(float(line)), flush=True)


class Training:
    """Process that trains on request."""

    def __init__(self, threads: int, spin: bool):
        command = [sys.executable, __file__, "--work", "--threads", str(threads), *(["--spin"] if spin else [])]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a training ended early; see its error above")
        return line

    def ask(self, seconds: float) -> None:
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()


def speeds(trainings: list[Training], seconds: float) -> list[float]:
    """Train all simultaneously; return the steps per second of each."""
    for training in trainings:
        training.ask(seconds)
    return [float(training.answer()) for training in trainings]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads per training (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="seconds per measurement (default: %(default)s)")
    parser.add_argument("--spin", action="store_true", help="do not limit spinning, which the tools do")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.spin:
        process.before_torch()
    if arguments.work:
        return work(arguments.threads)
    trainings = [Training(arguments.threads, arguments.spin) for _ in range(2)]
    for training in trainings:
        training.answer()
    load = os.getloadavg()[0]
    print(f"{arguments.threads} threads each on {process.usable_cores()} cores, load before {load:.1f}")
    print("alone (steps/s) | together (steps/s) | share of the speed alone")
    shares = []
    for _ in range(arguments.repeats):
        alone = [speeds([training], arguments.seconds)[0] for training in trainings]
        together = speeds(trainings, arguments.seconds)
        shares.append([both / one for both, one in zip(together, alone, strict=True)])
        cells = (alone, together, shares[-1])
        print(" | ".join(" ".join(f"{number:.2f}" for number in cell) for cell in cells), flush=True)
    for training in trainings:
        training.process.stdin.close()
        training.process.wait()
    first, second = (median(turn[k] for turn in shares) for k in range(2))
    print(f"median share of the speed alone: {first:.2f} and {second:.2f} (0.5 each is even)")


if __name__ == "__main__":
    main()
