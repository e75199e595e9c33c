"""Builds the CUDA kernels, checks each against its twin, and times ops and models against torchvision on a GPU.

python benchmarks/gpu.py                # builds, checks, times: under 8 minutes, one table
python benchmarks/gpu.py --device cpu --repeats 1 --only checks   # what of it a machine without a GPU can run

The protocol is in README.md of this folder. It has not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import ops_cpu
import timing
import torch
import torchvision

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.layers import _native
from maskrcnn_benchmark.layers.nms import batched_nms, nms_twin
from maskrcnn_benchmark.layers.roi_align import multilevel_roi_align, roi_align_twin
from maskrcnn_benchmark.layers.sigmoid_focal_loss import sigmoid_focal_loss, sigmoid_focal_loss_twin
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.utils import build_ops

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
STARTED_ANEW = "GPU_BENCHMARK_STARTED_ANEW"
Check = tuple[str, float, float]  # name, error, what is allowed
Case = tuple[str, Callable, Callable | None]  # title, ours, theirs


# ---- checks --------------------------------------------------------------------------------------------------------


def checks(device: torch.device) -> Iterator[Check]:
    """Every op in float64 and float32 on `device` against its twin in float64 on the CPU: largest error over the
    twin's largest value."""
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        for layout in (torch.contiguous_format, torch.channels_last):
            for deterministic in (False, True):
                name = f"roi_align {dtype} {layout} deterministic={deterministic}"
                yield name, _roi_align_error(device, dtype, layout, deterministic), allowed
        for dense in (False, True):
            yield f"focal loss {dtype} dense={dense}", _focal_loss_error(device, dtype, dense), allowed
        yield f"nms {dtype}, boxes that differ", _nms_error(device, dtype), 0.0


def _error(ours: list[torch.Tensor], twins: list[torch.Tensor]) -> float:
    return max(
        float((mine.double().cpu() - twin).abs().max() / twin.abs().max())
        for mine, twin in zip(ours, twins, strict=True)
    )


def _pooled_and_grads(function, maps, *rest):
    maps = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in maps]
    pooled = function(maps, *rest)
    weights = torch.linspace(-1, 1, pooled.numel(), dtype=torch.float64).view(pooled.shape).to(pooled)
    return [pooled.detach(), *torch.autograd.grad(pooled, maps, weights)]


def _roi_align_error(device, dtype, layout, deterministic: bool) -> float:
    scales = [1 / 4, 1 / 8, 1 / 16]
    maps = [torch.randn(2, 40, int(96 * s), int(128 * s), dtype=torch.float64) for s in scales]
    corner = torch.rand(60, 2, dtype=torch.float64) * 110 - 10
    rois = torch.cat((torch.randint(0, 2, (60, 1)), corner, corner + torch.rand(60, 2) ** 2 * 60), dim=1)
    # what float32 holds exactly, so that the samples of both lie at the same places up to rounding of the arithmetic
    maps, rois = [x.float().double() for x in maps], rois.float().double()
    levels = torch.randint(0, 3, (60,))
    twins = _pooled_and_grads(roi_align_twin, maps, rois, levels, scales, 4, 5, 2, True)
    given = [x.to(device, dtype).contiguous(memory_format=layout) for x in maps]
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        arguments = (rois.to(device, dtype), levels.to(device), (4, 5), scales, 2, True)
        return _error(_pooled_and_grads(multilevel_roi_align, given, *arguments), twins)
    finally:
        torch.use_deterministic_algorithms(before)


def _focal_loss_error(device, dtype, dense: bool) -> float:
    logits = (torch.randn(500, 80) * 4).double()
    targets = torch.randint(-1, 81, (500,))
    if dense:
        targets = torch.rand(500, 80).double()

    def loss_and_grad(function, x, given):
        x = x.detach().requires_grad_()
        loss = function(x, given, 2.0, 0.25)
        return [loss.detach(), *torch.autograd.grad(loss.sum(), x)]

    ours = loss_and_grad(sigmoid_focal_loss, logits.to(device, dtype), targets.to(device))
    return _error(ours, loss_and_grad(sigmoid_focal_loss_twin, logits, targets))


def _nms_error(device, dtype) -> float:
    boxes, scores = ops_cpu.boxes_in(2000, 500, 100).to(dtype), torch.rand(2000, dtype=dtype)
    groups = torch.randint(0, 3, (2000,))
    ours = batched_nms(boxes.to(device), scores.to(device), groups.to(device), 0.5).cpu()
    twin = nms_twin(boxes, scores, groups, 0.5, False, -1)
    return 0.0 if ours.equal(twin) else float(len(set(ours.tolist()) ^ set(twin.tolist())) or 1)


# ---- times ---------------------------------------------------------------------------------------------------------


def op_cases() -> Iterator[Case]:
    """Those of ops_cpu.py, on whatever device is torch's default; masks end on the host and are left out."""
    for name, cases in ops_cpu.CASES.items():
        if name != "paste":
            yield from cases()


def build(config: str, *options) -> torch.nn.Module:
    """Our model of a config with random weights, on the default device."""
    cfg = defaults.clone()
    cfg.merge_from_file(str(CONFIGS / config))
    cfg.merge_from_list(["MODEL.DEVICE", torch.get_default_device().type, "MODEL.WEIGHT", "", *options])
    return build_detection_model(cfg).to(torch.get_default_device())


def graphed(function: Callable, x: torch.Tensor) -> Callable:
    """The function replayed from a CUDA graph: for dense parts, whose shapes do not depend on what is seen."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function(x)
    return graph.replay


def model_cases(size: tuple[int, int]) -> Iterator[Case]:
    """Batch 1, tensor in, detections out; random weights on both sides."""
    picture = torch.randn(1, 3, *size)
    peers = {
        "fcos": torchvision.models.detection.fcos_resnet50_fpn,
        "faster": torchvision.models.detection.fasterrcnn_resnet50_fpn,
    }
    ours = {
        "FCOS R-50": ("fcos", "fcos/fcos_R_50_FPN_1x.yaml"),
        "FCOS V-39": ("fcos", "vovnet/fcos_V_39_FPN_1x.yaml"),
        "Faster R-50": ("faster", "e2e_faster_rcnn_R_50_FPN_1x.yaml"),
        "Faster V-39": ("faster", "vovnet/e2e_faster_rcnn_V_39_FPN_2x.yaml"),
    }
    peers = {
        name: make(weights=None, weights_backbone=None, min_size=min(size), max_size=max(size))
        .to(picture.device)
        .eval()
        for name, make in peers.items()
    }
    for title, (kind, config) in ours.items():
        model = build(config).eval()
        theirs = partial(_run, peers[kind], [picture[0]], torch.float32)
        yield f"{title}, float32", partial(_run, model, picture, torch.float32), theirs
        last = model.to(memory_format=torch.channels_last)
        x = picture.contiguous(memory_format=torch.channels_last)
        yield f"{title}, float32 channels_last", partial(_run, last, x, torch.float32), theirs
        yield f"{title}, bfloat16 channels_last", partial(_run, last, x, torch.bfloat16), theirs
        if picture.is_cuda:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                yield f"{title}, dense part alone, bfloat16, CUDA graph", graphed(last.backbone, x), None


def _run(model, x, dtype) -> None:
    with torch.inference_mode(), torch.autocast(_device_type(x), dtype, enabled=dtype != torch.float32):
        model(x)


def _device_type(x) -> str:
    return (x if isinstance(x, torch.Tensor) else x[0]).device.type


def training_cases(size: tuple[int, int]) -> Iterator[Case]:
    """Forward and backward of a batch of 2 with 8 objects each; the optimizer is left out on both sides."""
    pictures = torch.randn(2, 3, *size)
    boxes = [ops_cpu.boxes_in(8, min(size) / 2, min(size) / 3) + torch.tensor([0.0, 0, 8, 8]) for _ in range(2)]
    labels = [torch.randint(1, 81, (8,)) for _ in range(2)]
    model = build("e2e_faster_rcnn_R_50_FPN_1x.yaml").train()
    peer = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=min(size), max_size=max(size)
    )
    peer = peer.to(pictures.device).train()
    lists = []
    for box, label in zip(boxes, labels, strict=True):
        lists.append(BoxList(box, (size[1], size[0])))
        lists[-1].add_field("labels", label)
    theirs = [{"boxes": box, "labels": label} for box, label in zip(boxes, labels, strict=True)]

    def step(network, inputs, targets):
        network.zero_grad(set_to_none=True)
        sum(network(inputs, targets).values()).backward()

    yield (
        "training step of Faster R-50, batch 2",
        partial(step, model, pictures, lists),
        partial(step, peer, list(pictures), theirs),
    )


def seconds(function: Callable, device: torch.device) -> float:
    if device.type != "cuda":
        return timing.seconds(function)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2] * 1e3


def row(case: Case, repeats: int, device: torch.device) -> str:
    title, ours, theirs = case
    sides = [ours] if theirs is None else [ours, theirs]
    for side in sides:
        side()
    runs = [[seconds(side, device) for side in sides] for _ in range(repeats)]
    times = [median(list(side)) for side in zip(*runs, strict=True)]
    other, ratio = ("", "") if theirs is None else (f"{times[1]:.2f}", f"{times[1] / times[0]:.1f}")
    return f"| {title} | {times[0]:.2f} | {other} | {ratio} |"


# ---- the run -------------------------------------------------------------------------------------------------------


def build_kernels() -> None:
    """Builds what is out of date and starts this script anew with it: a library is loaded when the package is."""
    os.environ.setdefault("BUILD_CUDA", "1")
    print(build_ops.describe(build_ops.build(if_changed=True)), flush=True)
    if "cuda" in _native.LOADED:
        return
    if os.environ.get(STARTED_ANEW):
        raise SystemExit(f"the CUDA kernels were not loaded: {_native.REASONS.get('cuda')}")
    os.environ[STARTED_ANEW] = "1"
    os.execv(sys.executable, [sys.executable, *sys.argv])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu: a dry run of the script, without building")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1344), help="height and width of the pictures")
    parser.add_argument("--minutes", type=float, default=7, help="no further row begins after so long")
    parser.add_argument("--only", choices=("checks", "ops", "models", "training"), default=None)
    options = parser.parse_args(arguments)
    start = time.monotonic()
    device = torch.device(options.device)
    if device.type == "cuda":
        build_kernels()
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, torchvision {torchvision.__version__}\n")
    torch.manual_seed(0)
    wrong = 0
    if options.only in (None, "checks"):
        print("| check | error | allowed |\n|---|---|---|")
        for name, error, allowed in checks(device):
            wrong += not error <= allowed
            print(f"| {name} | {error:.1e}{'' if error <= allowed else ' WRONG'} | {allowed:.0e} |", flush=True)
        print()
    size = tuple(options.size)
    groups = {"ops": op_cases, "models": partial(model_cases, size), "training": partial(training_cases, size)}
    groups = {name: cases for name, cases in groups.items() if options.only in (None, name)}
    if groups:
        print(f"| {device}, median of {options.repeats} | ours ms | torchvision ms | ratio |\n|---|---|---|---|")
    torch.set_default_device(device)
    try:
        for cases in groups.values():
            for case in cases():
                if time.monotonic() - start > options.minutes * 60:
                    print(f"| {case[0]} | no time left | | |")
                    continue
                print(row(case, options.repeats, device), flush=True)
    finally:
        torch.set_default_device("cpu")
    if wrong:
        raise SystemExit(f"{wrong} checks failed")


if __name__ == "__main__":
    main()
