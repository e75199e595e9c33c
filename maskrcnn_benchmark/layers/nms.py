"""Greedy non-maximum suppression. Kernels: csrc/cpu/nms.cpp, csrc/cuda/nms.cu.

Shapes: N boxes, M kept boxes.

IoU is that of xyxy boxes. With `inclusive` a side is x2 - x1 + 1, as in maskrcnn-benchmark, otherwise x2 - x1. All
arithmetic is float32 (float64 if a tensor is) and rounded equally on every device. A box is suppressed by a kept box of
its group at IoU > threshold. The forks' CUDA kernel did that; their CPU kernel used >=. Published results come from
CUDA.

For equal scores the lower index comes first. A box with a NaN score is dropped: it is not kept and suppresses nothing.
(Callers use this to drop boxes without reading their number, for which the host would wait for the GPU.) A box with a
NaN coordinate overlaps nothing, so it is kept and suppresses nothing. Boxes without area do not suppress each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.native import library


def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    iou_threshold: float,
    *,
    inclusive: bool = False,
    max_keep: int = -1,
) -> Tensor:
    """Return the indices of the boxes kept by NMS, in descending order of scores.

    Args:
        boxes: (N, 4) xyxy, any floating dtype.
        scores: (N,), any floating dtype.
        groups: (N,) integers; boxes of different groups do not suppress each other. None: one group.
        iou_threshold: at least 0.
        inclusive: the last pixel belongs to the box (sides + 1).
        max_keep: number of boxes to keep at most, over all groups together; negative: no limit.

    Returns:
        (M,) int64 on the device of the boxes. No gradient flows through it.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or numbers are invalid.
    """
    _check(boxes, scores, groups, iou_threshold)
    boxes, scores = boxes.detach(), scores.detach()
    if library.kernels_for(boxes.device):
        return torch.ops.maskrcnn_benchmark.nms(boxes, scores, groups, float(iou_threshold), inclusive, max_keep)
    return nms_twin(boxes, scores, groups, float(iou_threshold), inclusive, max_keep)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Apply NMS as maskrcnn-benchmark does: inclusive boxes, indices (M,) int64 in ascending order, not by score."""
    return batched_nms(boxes, scores, None, threshold, inclusive=True).sort().values


def ml_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Apply NMS per label as FCOS does: as `nms`, for each integer or floating label separately."""
    return batched_nms(boxes, scores, labels.to(torch.int64), threshold, inclusive=True).sort().values


def nms_twin(
    boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float, inclusive: bool, max_keep: int
) -> Tensor:
    """Compute the op in plain PyTorch: one kept box at a time against all that follow."""
    dtype = torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32
    extra = 1.0 if inclusive else 0.0
    order = scores.to(dtype).sort(descending=True, stable=True).indices
    order = order[~scores[order].isnan()]
    x1, y1, x2, y2 = boxes[order].to(dtype).unbind(1)
    area = (x2 - x1 + extra) * (y2 - y1 + extra)
    group = torch.zeros_like(order) if groups is None else groups[order]
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    kept = []
    for i in range(len(order)):
        if 0 <= max_keep <= len(kept):
            break
        if not alive[i]:
            continue
        kept.append(i)
        width = (torch.minimum(x2[i], x2) - torch.maximum(x1[i], x1) + extra).clamp(min=0)
        height = (torch.minimum(y2[i], y2) - torch.maximum(y1[i], y1) + extra).clamp(min=0)
        common = width * height
        alive &= ~((common / (area[i] + area - common) > iou_threshold) & (group == group[i]))
    return order[torch.tensor(kept, dtype=torch.int64, device=boxes.device)]


def _check(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_threshold: float) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes have shape {tuple(boxes.shape)}; expected (N, 4)")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores have shape {tuple(scores.shape)}; expected ({len(boxes)},), one per box")
    if not boxes.is_floating_point() or not scores.is_floating_point():
        raise TypeError(f"boxes are {boxes.dtype} and scores {scores.dtype}; expected floating dtypes")
    if scores.device != boxes.device:
        raise ValueError(f"boxes are on {boxes.device}, scores on {scores.device}; expected one device")
    if groups is not None:
        if groups.shape != scores.shape:
            raise ValueError(f"groups have shape {tuple(groups.shape)}; expected ({len(boxes)},), one per box")
        if groups.is_floating_point() or groups.is_complex():
            raise TypeError(f"groups are {groups.dtype}; expected integers")
        if groups.device != boxes.device:
            raise ValueError(f"boxes are on {boxes.device}, groups on {groups.device}; expected one device")
    if not iou_threshold >= 0:  # NaN too
        raise ValueError(f"iou_threshold is {iou_threshold}; expected a number of at least 0")


if library.declared():

    @torch.library.register_fake("maskrcnn_benchmark::nms")
    def _nms_fake(boxes, scores, groups, iou_threshold, inclusive, max_keep):
        return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)

    for _device in ("cpu", "cuda"):
        torch.library.register_autocast("maskrcnn_benchmark::nms", _device, torch.float32)
