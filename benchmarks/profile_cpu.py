"""Profile a detector on the CPU: time and GFLOP/s by kind of operator.

    python benchmarks/profile_cpu.py [--only V-39] [--training fcos] [--threads 2] [--repeats 7] [--keep-memory]

Every operator that torch or this package runs for an image or a training step is timed. The remaining time is Python's;
about half of it is the overhead of the profiler.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import timing
import torch
from detectors import PAIRS
from models_cpu import BODIES, HEIGHT, WIDTH, our_sides
from torch.utils._python_dispatch import TorchDispatchMode
from training_cpu import BATCH_SIZE, SIDE, make_objects, our_steps

from maskrcnn_benchmark.profiling.flops import winograd_chain_flops, winograd_flops

CONVOLUTIONS = ("aten::convolution", "mkldnn::_convolution_pointwise", "mkldnn::_convolution_pointwise_")
PRODUCTS = ("aten::addmm", "aten::mm", "mkldnn::_linear_pointwise")
WINOGRAD, ORDINARY, PRODUCT = "3x3 by Winograd", "other convolutions", "linear layers"
REST, PYTHON = "other operators", "between operators"


class Profile(TorchDispatchMode):
    """Context that accumulates seconds and floating-point operations by kind of operator."""

    def __init__(self, clock: str):
        super().__init__()
        self.clock = timing.CLOCKS[clock]
        self.seconds: dict[str, float] = defaultdict(float)
        self.flops: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        start = self.clock()
        result = operator(*args, **(kwargs or {}))
        taken = self.clock() - start
        kind, flops = kind_and_flops(operator, args, result)
        self.seconds[kind] += taken
        self.flops[kind] += flops
        return result


def kind_and_flops(operator, args, result) -> tuple[str, int]:
    name, overload = operator.name().partition(".")[::2]
    tensors = [argument for argument in args if isinstance(argument, torch.Tensor)]
    if name == "maskrcnn_benchmark::winograd_conv":
        return WINOGRAD, winograd_flops(tensors[0].shape, out_shape=result.shape)
    if name == "maskrcnn_benchmark::winograd_chain":
        return WINOGRAD, winograd_chain_flops(tensors[0].shape, (), [bias.shape for bias in args[2]])
    if name == "maskrcnn_benchmark::winograd_weight_grad":
        grad, images = tensors
        return WINOGRAD, winograd_flops(images.shape, out_shape=grad.shape)
    if name == "aten::convolution_backward":
        grad, _, weight = tensors
        return ORDINARY, 2 * sum(args[-1][:2]) * grad.numel() * math.prod(weight.shape[1:])
    if name in CONVOLUTIONS:
        weight = tensors[2 if overload == "binary" else 1]  # binary: a tensor is added to the result
        return ORDINARY, 2 * result.numel() * math.prod(weight.shape[1:])
    if name in PRODUCTS:
        rows = tensors[1] if name == "aten::addmm" else tensors[0]
        return PRODUCT, 2 * result.numel() * rows.shape[1]
    return REST, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=7)
    parser.add_argument("--only", choices=BODIES, default=None)
    parser.add_argument("--training", choices=PAIRS, default=None, help="profile a training step with R-50 instead")
    arguments = parser.parse_args()
    timing.begin(arguments)
    print("| model | dtype | work | ms | G multiply-adds | GFLOP/s |\n|---|---|---|---|---|---|")
    if arguments.training:
        images = [torch.rand(3, SIDE, SIDE) for _ in range(BATCH_SIZE)]
        steps = our_steps(arguments.training, images, [make_objects() for _ in images])
        profile(f"{arguments.training} step", steps, arguments)
        return
    image = torch.rand(3, HEIGHT, WIDTH)
    for body in [name for name in BODIES if arguments.only in (None, name)]:
        profile(f"faster {body}", our_sides(BODIES[body], "faster", image), arguments)


def profile(title: str, sides: Sequence[Callable], arguments: argparse.Namespace) -> None:
    """Print the rows of one model.

    Args:
        title: name of the model.
        sides: functions that run it in float32 and in bfloat16.
        arguments: arguments of the script.
    """
    for dtype, side in zip(("float32", "bfloat16"), sides, strict=True):
        for kind, (seconds, flops) in measure(side, arguments.repeats, arguments.clock).items():
            speed = f"{flops / 2e9:.1f} | {flops / seconds / 1e9:.0f}" if flops else "| "
            print(f"| {title} | {dtype} | {kind} | {seconds * 1e3:.1f} | {speed} |", flush=True)


def measure(side, repeats: int, clock: str) -> dict[str, tuple[float, int]]:
    """Return (median seconds, floating-point operations) of one call of side() by kind of operator."""
    side()
    runs = []
    for _ in range(repeats):
        with Profile(clock) as run:
            whole = timing.seconds(side, clock)
        run.seconds[PYTHON] = whole - sum(run.seconds.values())
        runs.append(run)
    middle = repeats // 2
    return {
        kind: (sorted(run.seconds[kind] for run in runs)[middle], runs[0].flops[kind])
        for kind in (WINOGRAD, ORDINARY, PRODUCT, REST, PYTHON)
    }


if __name__ == "__main__":
    main()
