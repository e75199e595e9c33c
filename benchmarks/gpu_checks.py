"""Check every op on a device against its twin in float64 on the CPU, for benchmarks/gpu.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import ops_cpu
import torch

from maskrcnn_benchmark.layers.nms import batched_nms, nms_twin
from maskrcnn_benchmark.layers.roi_align import multilevel_roi_align, roi_align, roi_align_twin
from maskrcnn_benchmark.layers.sigmoid_focal_loss import sigmoid_focal_loss, sigmoid_focal_loss_twin

# name, function that computes the error, largest allowed error
Check = tuple[str, Callable[[], float], float]
# relative to the largest value: rounding of sums in float32, and of the result in half types
ALLOWED = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SCALES = (1 / 4, 1 / 8, 1 / 16)
MANY = 36_000  # boxes: more tiles of 64 than the 512 threads of the block that processes them


def checks(device: torch.device) -> Iterator[Check]:
    """Yield the checks. Errors are relative to the twin's largest value; for NMS, the number of differing boxes."""
    for dtype, allowed in ALLOWED.items():
        kind = str(dtype).removeprefix("torch.")
        for name, layout in LAYOUTS.items():
            for deterministic in (False, True):
                # 40 channels can be read 16 bytes at a time, 3 cannot
                for channels, ratio, aligned in ((40, 2, True), (3, 0, False)):
                    title = f"roi_align {kind}, {name}, {channels} channels, {ratio or 'adaptive'} samples"
                    title += ", deterministic" if deterministic else ""
                    arguments = (device, dtype, layout, deterministic, channels, ratio, aligned)
                    yield title, partial(roi_align_error, *arguments), allowed
        for gamma in (2.0, 1.5):
            for dense in (False, True):
                title = f"focal loss {kind}, {'dense targets' if dense else 'labels'}, gamma {gamma}"
                yield title, partial(focal_loss_error, device, dtype, dense, gamma), allowed
    for dtype, count in ((torch.float64, 2000), (torch.float32, 64), (torch.float32, MANY), (torch.float16, 2000)):
        title = f"nms {str(dtype).removeprefix('torch.')}, {count} boxes, differing boxes"
        yield title, partial(nms_error, device, dtype, count), 0.0
    yield "roi_align of non-finite regions", partial(wild_regions_error, device), 0.0
    yield "every op on empty inputs", partial(empty_error, device), 0.0
    yield "deterministic roi_align repeats bit-identical", partial(repeatability_error, device), 0.0


def _error(ours: list[torch.Tensor], twins: list[torch.Tensor]) -> float:
    """Return the largest relative difference; infinite if NaN occurs on one side only."""
    worst = 0.0
    for mine, twin in zip(ours, twins, strict=True):
        difference = (mine.double().cpu() - twin.double()).abs().max() / twin.double().abs().max()
        worst = max(worst, float(difference.nan_to_num(torch.inf)))
    return worst


def _pooled_and_grads(function, maps, weights, *rest):
    maps = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in maps]
    pooled = function(maps, *rest)
    return [pooled.detach(), *torch.autograd.grad(pooled, maps, weights.to(pooled))]


def _pyramid(channels: int) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Return float64 maps, 60 ROIs and their levels. All are exact in float32, and maps also in half types."""
    maps = [torch.randint(-8, 9, (2, channels, int(96 * s), int(128 * s))).double() / 8 for s in SCALES]
    corner = torch.rand(60, 2) * 110 - 10
    rois = torch.cat((torch.randint(0, 2, (60, 1)), corner, corner + torch.rand(60, 2) ** 2 * 60), dim=1)
    return maps, rois.double(), torch.randint(0, 3, (60,))


def roi_align_error(device, dtype, layout, deterministic: bool, channels: int, ratio: int, aligned: bool) -> float:
    maps, rois, levels = _pyramid(channels)
    weights = torch.randint(-8, 9, (60, channels, 4, 5)).double() / 8
    twins = _pooled_and_grads(roi_align_twin, maps, weights, rois, levels, list(SCALES), 4, 5, ratio, aligned)
    given = [x.to(device, dtype).contiguous(memory_format=layout) for x in maps]
    boxes = rois.to(device, torch.float64 if dtype == torch.float64 else torch.float32)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        arguments = (boxes, levels.to(device), (4, 5), list(SCALES), ratio, aligned)
        return _error(_pooled_and_grads(multilevel_roi_align, given, weights, *arguments), twins)
    finally:
        torch.use_deterministic_algorithms(before)


def wild_regions_error(device) -> float:
    nan, inf = float("nan"), float("inf")
    rois = torch.tensor([[0.0, nan, 0, 4, 4], [0, 0, 0, inf, 4], [0, 0, -inf, 4, 4], [0, 900, 900, 990, 990]])
    maps = torch.ones(1, 8, 20, 20, device=device).contiguous(memory_format=torch.channels_last)
    return max(float(roi_align(maps, rois.to(device), 7, 1.0, ratio).abs().max()) for ratio in (0, 2))


def repeatability_error(device) -> float:
    maps, rois, levels = _pyramid(40)
    maps = [x.to(device, torch.float32) for x in maps]
    weights, arguments = torch.randn(60, 40, 7, 7), (rois.float().to(device), levels.to(device), 7, list(SCALES), 2)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (_pooled_and_grads(multilevel_roi_align, maps, weights, *arguments) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(before)
    return float(sum(not x.equal(y) for x, y in zip(first, second, strict=True)))


def focal_loss_error(device, dtype, dense: bool, gamma: float) -> float:
    logits = (torch.randn(500, 80) * 4).to(dtype)
    targets = torch.rand(500, 80).to(dtype) if dense else torch.randint(-1, 81, (500,))

    def loss_and_grad(function, x, given):
        x = x.detach().requires_grad_()
        loss = function(x, given, gamma, 0.25)
        return [loss.detach(), *torch.autograd.grad(loss.sum(), x)]

    ours = loss_and_grad(sigmoid_focal_loss, logits.to(device), targets.to(device))
    exact_targets = targets.double() if dense else targets
    return _error(ours, loss_and_grad(sigmoid_focal_loss_twin, logits.double(), exact_targets))


def nms_error(device, dtype, count: int) -> float:
    boxes = ops_cpu.boxes_in(count, 20 * count**0.5, 100).to(dtype)
    # many equal scores, and some NaN
    scores = (torch.rand(count) * 500).round().to(dtype) / 500
    scores[:: max(1, count // 20)] = torch.nan
    groups, differing = torch.randint(0, 3, (count,)), 0
    reference = nms_twin if count < MANY else torch.ops.maskrcnn_benchmark.nms  # the CPU kernel: the twin takes minutes
    for given, inclusive, most in ((groups, False, -1), (None, True, count // 10)):
        on_device = None if given is None else given.to(device)
        ours = batched_nms(
            boxes.to(device), scores.to(device), on_device, 0.5, inclusive=inclusive, max_keep=most
        ).cpu()
        twin = reference(boxes, scores, given, 0.5, inclusive, most)
        differing += 0 if ours.equal(twin) else len(set(ours.tolist()) ^ set(twin.tolist())) or 1
    return float(differing)


def empty_error(device) -> float:
    none = torch.zeros(0, 4, device=device)
    kept = batched_nms(none, none[:, 0], None, 0.5)
    maps = torch.randn(2, 8, 5, 5, device=device, requires_grad=True)
    pooled = roi_align(maps, torch.zeros(0, 5, device=device), 7, 1.0, 2)
    pooled.sum().backward()
    loss = sigmoid_focal_loss(none, torch.zeros(0, dtype=torch.int64, device=device), 2.0, 0.25)
    return float(kept.numel() + pooled.numel() + loss.numel() + maps.grad.abs().sum())
