"""Where a detector's time on the CPU goes, kind of work by kind of work, with the speed that each reaches.

python benchmarks/profile_cpu.py [--only V-39] [--training fcos] [--threads 2] [--repeats 7] [--keep-memory]

Every operator that torch or this package runs for a picture, or a training step, is timed; what is left of the time is
Python's, and about half of that comes from looking on.
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
from training_cpu import PICTURES, SIDE, make_objects, our_steps

from maskrcnn_benchmark.profiling.flops import winograd_chain_flops, winograd_flops

CONVOLUTIONS = ("aten::convolution", "mkldnn::_convolution_pointwise", "mkldnn::_convolution_pointwise_")
PRODUCTS = ("aten::addmm", "aten::mm", "mkldnn::_linear_pointwise")
WINOGRAD, ORDINARY, PRODUCT = "3x3 by Winograd", "other convolutions", "linear layers"
REST, PYTHON = "other operators", "between operators"


class Profile(TorchDispatchMode):
    """Adds up seconds and floating-point operations of each kind of work while it is entered."""

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
        grad, pictures = tensors
        return WINOGRAD, winograd_flops(pictures.shape, out_shape=grad.shape)
    if name == "aten::convolution_backward":
        grad, _, weight = tensors
        return ORDINARY, 2 * sum(args[-1][:2]) * grad.numel() * math.prod(weight.shape[1:])
    if name in CONVOLUTIONS:
        weight = tensors[2 if overload == "binary" else 1]  # binary: something is added to the convolution
        return ORDINARY, 2 * result.numel() * math.prod(weight.shape[1:])
    if name in PRODUCTS:
        rows = tensors[1] if name == "aten::addmm" else tensors[0]
        return PRODUCT, 2 * result.numel() * rows.shape[1]
    return REST, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=7)
    parser.add_argument("--only", choices=BODIES, default=None)
    parser.add_argument("--training", choices=PAIRS, default=None, help="a step of this detector with R-50 instead")
    arguments = parser.parse_args()
    timing.begin(arguments)
    print("| model | dtype | work | ms | G multiply-adds | GFLOP/s |\n|---|---|---|---|---|---|")
    if arguments.training:
        pictures = [torch.rand(3, SIDE, SIDE) for _ in range(PICTURES)]
        steps = our_steps(arguments.training, pictures, [make_objects() for _ in pictures])
        profile(f"{arguments.training} step", steps, arguments)
        return
    picture = torch.rand(3, HEIGHT, WIDTH)
    for body in [name for name in BODIES if arguments.only in (None, name)]:
        profile(f"faster {body}", our_sides(BODIES[body], "faster", picture), arguments)


def profile(title: str, sides: Sequence[Callable], arguments: argparse.Namespace) -> None:
    """Prints the rows of one model.

    Args:
        sides: in float32 and in bfloat16.
    """
    for dtype, side in zip(("float32", "bfloat16"), sides, strict=True):
        for kind, (seconds, flops) in measure(side, arguments.repeats, arguments.clock).items():
            speed = f"{flops / 2e9:.1f} | {flops / seconds / 1e9:.0f}" if flops else "| "
            print(f"| {title} | {dtype} | {kind} | {seconds * 1e3:.1f} | {speed} |", flush=True)


def measure(side, repeats: int, clock: str) -> dict[str, tuple[float, int]]:
    """(median seconds, floating-point operations) of each kind of work in one call of side()."""
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
