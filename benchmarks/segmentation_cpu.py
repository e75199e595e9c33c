"""Time DeepLabV3 on the CPU: VoVNet against ResNet, and torchvision's architecture against torchvision.

python benchmarks/segmentation_cpu.py [--threads 2] [--repeats 7] [--only bodies] [--clock wall]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import timing
import torch
from detectors import config
from torch import Tensor, nn
from torchvision.models import segmentation

from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.profiling.flops import count_multiply_adds
from maskrcnn_benchmark.profiling.peak_memory import MemoryMeter
from maskrcnn_benchmark.structures.image_list import to_image_list

SIDE = 513
PAIRS = (("V-39", "R-50"), ("V-57", "R-101"))
TORCHVISION = "deeplabv3_R_50_torchvision.yaml"
# (ms, memory in MB) that the original published for a V100
PUBLISHED = {"V-39": (19, 1901), "R-50": (24, 2193), "V-57": (25, 2251), "R-101": (32, 2865)}


def build(file: str, *options) -> nn.Module:
    """Build a model in eval mode, with the norm statistics of a noise image."""
    model = build_detection_model(config(file, *options)).eval()
    settle(model)
    return model


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Set the statistics of batch norms to those of a noise image."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]

    def normalise(norm, inputs):
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        # the mean over a whole map has no variance
        norm.running_var.copy_(inputs[0].var((0, 2, 3)) if inputs[0][0, 0].numel() > 1 else torch.ones(1))

    hooks = [norm.register_forward_pre_hook(normalise) for norm in norms]
    model(torch.rand(1, 3, 129, 129))
    for hook in hooks:
        hook.remove()


def classes_of(model: nn.Module, image: Tensor, dtype: torch.dtype = torch.float32) -> Callable[[], object]:
    """Return a function that predicts the classes (H, W) of an image (3, H, W)."""

    def run():
        with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            return model(to_image_list([image]))[0].get_field("semantic")

    return run


def their_classes(image: Tensor) -> Callable[[], Tensor]:
    model = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21).eval()
    settle(model)

    def run():
        with torch.inference_mode():
            return model(image[None])["out"].argmax(1)

    return run


def peak_bytes(file: str, threads: int) -> int | None:
    """Return the peak memory of weights and one image, above the memory of a new process."""
    torch.set_num_threads(threads)
    image = torch.randn(3, SIDE, SIDE)
    torch.nn.functional.conv2d(image, torch.randn(16, 3, 3, 3))  # so that oneDNN's own memory does not count
    meter = MemoryMeter(torch.device("cpu"))
    model = for_inference(build(file))
    meter.start()
    classes_of(model, image)()
    return meter.peak()


def in_new_process(function, *args):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result() or math.nan


def multiply_adds(file: str) -> float:
    """Count the multiply-adds of one image, in billions."""
    with torch.device("meta"):
        model = build_detection_model(config(file)).eval()
        return count_multiply_adds(model, lambda: model.logits(torch.empty(1, 3, SIDE, SIDE)))[""] / 1e9


def compare_bodies(image: Tensor, arguments: argparse.Namespace) -> None:
    print("| body | multiply-adds, 10^9 | float32 ms | bfloat16 ms | peak MB ", end="")
    print("| ratio to ResNet: float32 | bfloat16 | memory | published ms | memory |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for pair in PAIRS:
        files = [f"vovnet/deeplabv3_{body.replace('-', '_')}_voc.yaml" for body in pair]
        memory = [in_new_process(peak_bytes, file, arguments.threads) / 1e6 for file in files]
        models = [build(file) for file in files]
        dtypes = (torch.float32, torch.bfloat16)
        sides = [classes_of(for_inference(model, dtype), image, dtype) for model in models for dtype in dtypes]
        times = timing.medians(sides, arguments.repeats, arguments.clock)
        published = [PUBLISHED[body] for body in pair]
        for k, body in enumerate(pair):
            full, half = times[2 * k : 2 * k + 2]
            row = f"| {body} | {multiply_adds(files[k]):.1f} | {full:.0f} | {half:.0f} | {memory[k]:.0f} |"
            if k == 0:
                row += f" {full / times[2]:.2f} | {half / times[3]:.2f} | {memory[0] / memory[1]:.2f} |"
                row += " | ".join(f" {mine / other:.2f}" for mine, other in zip(*published, strict=True)) + " |"
            else:
                row += " | | | | |"
            print(row, flush=True)


def compare_with_torchvision(image: Tensor, arguments: argparse.Namespace) -> None:
    same = build(TORCHVISION)
    strided = "vovnet/deeplabv3_R_50_voc.yaml"
    half = torch.bfloat16
    sides = [
        their_classes(image),
        classes_of(for_inference(same), image),
        classes_of(for_inference(same, half), image, half),
        classes_of(for_inference(build(strided)), image),
    ]
    theirs, *ours = timing.medians(sides, arguments.repeats, arguments.clock)
    counts = [multiply_adds(TORCHVISION)] * 2 + [multiply_adds(strided)]
    print("\n| DeepLabV3 R-50 | multiply-adds, 10^9 | ms | torchvision ms / ms |\n|---|---|---|---|")
    print(f"| torchvision, output stride 8 | {counts[0]:.1f} | {theirs:.0f} | 1 |")
    names = ("ours, same architecture", "ours, same architecture, bfloat16", "ours, output stride 16")
    for name, count, time in zip(names, counts, ours, strict=True):
        print(f"| {name} | {count:.1f} | {time:.0f} | {theirs / time:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=7)
    parser.add_argument("--only", choices=["bodies", "torchvision"], default=None)
    arguments = parser.parse_args()
    timing.begin(arguments)
    image = torch.randn(3, SIDE, SIDE)
    if arguments.only in (None, "bodies"):
        compare_bodies(image, arguments)
    if arguments.only in (None, "torchvision"):
        compare_with_torchvision(image, arguments)


if __name__ == "__main__":
    main()
