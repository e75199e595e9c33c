"""Build the CUDA kernels, check each against its twin, and time ops, models and a training step against torchvision.

    python benchmarks/gpu.py                # everything in under 8 minutes: one table with targets
    python benchmarks/gpu.py --only fcos    # one part
    python benchmarks/gpu.py --device cpu --only checks --repeats 1   # the part that runs without a GPU

Every part runs in a separate process, so that a kernel that fails or hangs affects only its part. The protocol is in
README.md of this folder. The script has not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import models_cpu
import ops_cpu
import timing
import torch
import torchvision
import training_cpu
from gpu_checks import checks
from torch import Tensor, nn

from maskrcnn_benchmark.fast.for_inference import for_inference
from maskrcnn_benchmark.layers import roi_align
from maskrcnn_benchmark.native import build_ops, library
from maskrcnn_benchmark.structures.image_list import to_image_list

RATIO = 1.5  # target of torchvision's time / our time, for every op and the training step
MILLISECONDS = {"FCOS V-39": 8, "Faster V-39": 12}
BODIES = {
    "fcos": {"R-50": "fcos/fcos_R_50_FPN_1x.yaml", "V-39": "vovnet/fcos_V_39_FPN_1x.yaml"},
    "faster": {"R-50": models_cpu.BODIES["R-50"], "V-39": models_cpu.BODIES["V-39"]},
}
NAMES = {"fcos": "FCOS", "faster": "Faster"}
# Keys of ops_cpu.CASES that run on a GPU, without mask pasting, whose RLEs end on the host.
OPS = ("nms", "roi_align", "pooler", "focal_loss")
PARTS = ("checks", *OPS, *BODIES, "training")
HEAD = "| what | ours ms | torchvision ms | ratio | target | met |\n|---|---|---|---|---|---|"


@dataclass
class Case:
    """Functions to time, with a target: the least ratio of torchvision's time to ours, or the most milliseconds."""

    title: str
    ours: Callable[[], object]
    theirs: Callable[[], object] | None = None
    ratio: float | None = None
    most: float | None = None


# ---- ops -----------------------------------------------------------------------------------------------------------


def op_cases(name: str, device: torch.device) -> Iterator[Case]:
    # The default device is set only while a case is made, because it slows down every call.
    cases = ops_cpu.CASES[name]()
    while True:
        with device:
            case = next(cases, None)
        if case is None:
            break
        yield Case(*case, ratio=RATIO)
    if name == "roi_align":
        yield deterministic_case(device)


def deterministic_case(device: torch.device) -> Case:
    """Return a case without a target, because torchvision has no deterministic backward pass on a GPU."""
    maps = torch.randn(1, 256, 200, 336, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    rois = torch.cat((torch.zeros(512, 1), ops_cpu.boxes_in(512, 800, 400)), dim=1).to(device)
    pooled = roi_align(maps, rois, 7, 0.25, 2)
    grad = torch.randn_like(pooled)

    def backward():
        torch.use_deterministic_algorithms(True)
        try:
            torch.autograd.grad(pooled, maps, grad, retain_graph=True)
        finally:
            torch.use_deterministic_algorithms(False)

    return Case("roi_align backward, 512 ROIs, channels_last, deterministic", backward)


# ---- models --------------------------------------------------------------------------------------------------------


def model_cases(kind: str, device: torch.device, size: tuple[int, int]) -> Iterator[Case]:
    """Yield cases of batch 1, from an image to detections in its pixels, with about a hundred detections each."""
    image = torch.rand(3, *size, device=device)
    peer = models_cpu.their_side(kind, image)
    for body, config in BODIES[kind].items():
        model = models_cpu.our_model(config, kind, image)
        title, variants = f"{NAMES[kind]} {body}", our_variants(model, image)
        del model
        most = MILLISECONDS.get(title)
        for variant, (dtype, run) in variants.items():
            title_found = f"{title}, {variant}, {len(run())} detections"
            yield Case(title_found, run, partial(in_dtype, peer, dtype, device), most=most)


def in_dtype(function: Callable, dtype: torch.dtype, device: torch.device):
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return function()


def our_variants(model: nn.Module, image: Tensor) -> dict[str, tuple[torch.dtype, Callable]]:
    whole, half = for_inference(model), for_inference(model, torch.bfloat16)
    contiguous = copy.deepcopy(whole).to(memory_format=torch.contiguous_format)
    return {
        "float32 contiguous": (torch.float32, Detect(contiguous, image, torch.float32)),
        "float32 channels_last": (torch.float32, Detect(whole, image, torch.float32)),
        "bfloat16 channels_last": (torch.bfloat16, Detect(half, image, torch.bfloat16)),
        "bfloat16 channels_last, dense part in a CUDA graph": (
            torch.bfloat16,
            Detect(copy.deepcopy(half), image, torch.bfloat16, recorded=True),
        ),
    }


class Detect:
    """Callable that predicts one image (3, H, W), as a BoxList in pixels of the image.

    Args:
        recorded: run backbone and first head from a CUDA graph; their shapes do not depend on the content of images.
    """

    def __init__(self, model: nn.Module, image: Tensor, dtype: torch.dtype, recorded: bool = False):
        self.model, self.image, self.dtype = model, image, dtype
        self.mean, self.std = (
            torch.tensor(numbers, device=image.device).view(3, 1, 1) for numbers in (models_cpu.MEAN, models_cpu.STD)
        )
        if recorded:
            with self._mode():
                record_dense_part(model, self._normalised().tensors)

    def _mode(self):
        # The autocast cache would return memory of the graph after the recording.
        enabled = self.dtype != torch.float32
        return torch.autocast(self.image.device.type, self.dtype, enabled=enabled, cache_enabled=False)

    @torch.inference_mode()
    def _normalised(self):
        return to_image_list([(self.image - self.mean) / self.std], 32)

    @torch.inference_mode()
    def __call__(self):
        with self._mode():
            found = self.model(self._normalised())[0]
        return found.resize((self.image.shape[2], self.image.shape[1]))


@torch.inference_mode()
def record_dense_part(model: nn.Module, images: Tensor) -> None:
    """Replace backbone and first head by a recording for images (N, 3, H, W) of this size."""
    given = images.clone()
    backbone, head = model.backbone.forward, model.rpn.head.forward

    def dense():
        features = backbone(given)
        return features, head(features)

    (features, outputs), replay = record(dense, images.device)

    def replayed_backbone(x):
        given.copy_(x)
        replay()
        return features

    model.backbone.forward, model.rpn.head.forward = replayed_backbone, lambda features: outputs


def record(function: Callable[[], object], device: torch.device) -> tuple[object, Callable[[], None]]:
    """Record a function as a CUDA graph; on the CPU, the replay calls the function again.

    Returns:
        Outputs of the function, and a function that updates them in place.
    """
    if device.type != "cuda":
        outputs = function()

        def again():
            for old, new in zip(_tensors(outputs), _tensors(function()), strict=True):
                old.copy_(new)

        return outputs, again
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function()
    return outputs, graph.replay


def _tensors(nested) -> list[Tensor]:
    return [nested] if isinstance(nested, Tensor) else [tensor for part in nested for tensor in _tensors(part)]


# ---- training ------------------------------------------------------------------------------------------------------


def training_cases(device: torch.device, size: tuple[int, int]) -> Iterator[Case]:
    """Yield training steps of Faster R-50 on two square images with about as many pixels as `size`."""
    side = round((size[0] * size[1]) ** 0.5 / 32) * 32
    images = [torch.rand(3, side, side, device=device) for _ in range(training_cpu.BATCH_SIZE)]
    objects = [training_cpu.make_objects(side, device) for _ in images]
    theirs = training_cpu.their_step("faster", images, objects)
    sides = training_cpu.our_steps("faster", images, objects)
    for dtype, ours in zip((torch.float32, torch.bfloat16), sides, strict=True):
        title = f"training step of Faster R-50, 2 images of {side} x {side}, {str(dtype).removeprefix('torch.')}"
        yield Case(title, ours, partial(in_dtype, theirs, dtype, device), ratio=RATIO)


# ---- rows ----------------------------------------------------------------------------------------------------------


def seconds(function: Callable, device: torch.device) -> float:
    if device.type != "cuda":
        return timing.seconds(function)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def time_row(case: Case, repeats: int, device: torch.device) -> tuple[str, bool]:
    """Time both sides of a case interleaved, after a warm-up; if torchvision fails, time only ours.

    Returns:
        Row of the table, and whether the target is met.
    """
    sides = [case.ours] if case.theirs is None else [case.ours, case.theirs]
    before = 3 if device.type == "cuda" else 1
    for _ in range(before):
        case.ours()
    try:
        for _ in range(before if len(sides) > 1 else 0):
            case.theirs()
    except Exception:
        traceback.print_exc()
        sides = [case.ours]
    runs = [[seconds(side, device) for side in sides] for _ in range(repeats)]
    times = [sorted(side)[len(side) // 2] * 1e3 for side in zip(*runs, strict=True)]
    ratio = times[1] / times[0] if len(sides) > 1 else 0.0
    cells = [case.title, f"{times[0]:.3f}", "", "", "", ""]
    if case.theirs is not None:
        cells[2:4] = [f"{times[1]:.3f}", f"{ratio:.2f}"] if len(sides) > 1 else ["failed", ""]
    met = True
    if case.ratio is not None:
        cells[4], met = f">= {case.ratio}x", ratio >= case.ratio
    elif case.most is not None:
        cells[4], met = f"< {case.most} ms", times[0] < case.most
    if cells[4]:
        cells[5] = "yes" if met else "NO"
    return f"| {' | '.join(cells)} |", met


def check_row(name: str, error: float, allowed: float) -> tuple[str, bool]:
    met = error <= allowed
    return f"| check: {name} | error {error:.1e} | | | <= {allowed:.0e} | {'yes' if met else 'WRONG'} |", met


def rows(part: str, device: torch.device, size: tuple[int, int], repeats: int) -> Iterator[Callable]:
    """Yield functions that return (row, target met)."""
    if part == "checks":
        for name, error, allowed in checks(device):
            yield lambda name=name, error=error, allowed=allowed: check_row(name, error(), allowed)
        return
    if part in OPS:
        cases = op_cases(part, device)
    else:
        cases = training_cases(device, size) if part == "training" else model_cases(part, device, size)
    for case in cases:
        yield partial(time_row, case, repeats, device)


def run_part(part: str, device: torch.device, size: tuple[int, int], repeats: int) -> bool:
    """Print the rows of a part; return False if a check fails or raises. A missed target is not a failure."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    good, making = True, rows(part, device, size, repeats)
    while True:
        try:
            make = next(making, None)
            if make is None:
                return good
            line, met = make()
            good = good and (met or part != "checks")
        except Exception as error:
            good = False
            traceback.print_exc()
            reason = " ".join(str(error).split())[:150].replace("|", "/")
            line = f"| {part}: FAILED | {type(error).__name__}: {reason} | | | | NO |"
        print(line, flush=True)


# ---- the run -------------------------------------------------------------------------------------------------------


def build_kernels() -> None:
    """Build the libraries that are out of date."""
    os.environ.setdefault("BUILD_CUDA", "1")
    start = time.monotonic()
    print(build_ops.describe(build_ops.build(if_changed=True)), flush=True)
    print(f"built in {time.monotonic() - start:.0f} s\n", flush=True)


def describe(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{timing.cpu_name()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    tf32 = "convolutions in TF32" if torch.backends.cudnn.allow_tf32 else "no TF32"
    return (
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, torchvision {torchvision.__version__}, cuDNN "
        f"{torch.backends.cudnn.version()}, float32 with {tf32}"
    )


def run_all(arguments: list[str], minutes: float) -> bool:
    """Run every part in a separate process within the time limit; return whether all succeeded."""
    end, good = time.monotonic() + minutes * 60, True
    for part in PARTS:
        left = end - time.monotonic()
        if left < 5:
            outcome = "no time left"
        else:
            try:
                done = subprocess.run([sys.executable, __file__, *arguments, "--only", part], timeout=left)
                outcome = "" if done.returncode in (0, 1) else f"ended with {done.returncode}"
                good = good and done.returncode == 0
            except subprocess.TimeoutExpired:
                outcome = "stopped: no time left"
        if outcome:
            good = False
            print(f"| {part}: {outcome} | | | | | NO |", flush=True)
    return good


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu: a dry run of the script, without building")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333), help="height and width of the images")
    parser.add_argument("--minutes", type=float, default=6.5, help="time limit of all parts, without the build")
    parser.add_argument("--only", choices=PARTS, default=None)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU that torch can use; --device cpu runs the parts that do not require one")
    if options.only is None:
        if device.type == "cuda":
            build_kernels()
        print(f"{describe(device)}, median of {options.repeats}\n\n{HEAD}", flush=True)
        good = run_all(arguments, options.minutes)
    else:
        if device.type not in library.LOADED:
            raise SystemExit(f"no {device.type} kernels to check and time: {library.REASONS.get(device.type)}")
        good = run_part(options.only, device, tuple(options.size), options.repeats)
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
