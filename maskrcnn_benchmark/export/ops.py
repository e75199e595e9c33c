"""Custom ops of fixed output shapes for the steps of a detector that cannot be traced: NMS and ROIAlign over levels.

Each has a kernel for eager PyTorch, which calls `layers`, a fake kernel, and a translation for each format: to standard
ONNX operators (`onnx_translations`) and to torchvision's ops (`torchvision_decompositions`).

Shapes: B groups of boxes, P boxes of a group, K classes that share them, L maps, R ROIs, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.layers.roi_align import multilevel_roi_align

NAMESPACE = "maskrcnn_benchmark_export"
OPSET = 20


@torch.library.custom_op(f"{NAMESPACE}::suppress", mutates_args=())
def suppress(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, box_offset: float, most: int
) -> Tensor:
    """Mark the boxes that survive NMS, by group and class.

    Args:
        boxes: (B, P, 4) xyxy float32.
        scores: (B, K, P) float32.
        iou_threshold: a box is suppressed by a better one at an IoU above this.
        score_threshold: boxes with a score at or below this are ignored.
        box_offset: width of a box minus (x2 - x1), see Convention.
        most: maximum number of survivors per group and class.

    Returns:
        (B, K, P) bool.
    """
    kept = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    for group_boxes, group_scores, group_kept in zip(boxes, scores, kept, strict=True):
        for class_scores, class_kept in zip(group_scores, group_kept, strict=True):
            usable = (class_scores > score_threshold).nonzero().squeeze(1)
            best = batched_nms(
                group_boxes[usable], class_scores[usable], None, iou_threshold, inclusive=box_offset == 1, max_keep=most
            )
            class_kept[usable[best]] = True
    return kept


@suppress.register_fake
def _(boxes, scores, iou_threshold, score_threshold, box_offset, most):
    return torch.empty_like(scores, dtype=torch.bool)


@torch.library.custom_op(f"{NAMESPACE}::pool_levels", mutates_args=())
def pool_levels(
    maps: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    scales: list[float],
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Apply `layers.roi_align.multilevel_roi_align` to L maps; return (R, C, height, width). R is at least 1."""
    output_size = (height, width)
    pooled = multilevel_roi_align(maps, rois, levels, output_size, scales, sampling_ratio, aligned)
    return pooled.clone(memory_format=torch.contiguous_format)


@pool_levels.register_fake
def _(maps, rois, levels, scales, height, width, sampling_ratio, aligned):
    return maps[0].new_empty((rois.shape[0], maps[0].shape[1], height, width))


@torch.library.custom_op(f"{NAMESPACE}::with_free_sides", mutates_args=())
def with_free_sides(x: Tensor, sides: list[int]) -> Tensor:
    """Return x; when traced, the dimensions `sides` become dynamic sizes without a known relation to the image size.

    Otherwise tracers carry expressions of the image size through the graph, and spend minutes simplifying them.
    """
    return x.clone()


@with_free_sides.register_fake
def _(x, sides):
    context = torch.library.get_ctx()
    return x.new_empty([context.new_dynamic_size(min=1) if k in sides else side for k, side in enumerate(x.shape)])


def onnx_translations() -> dict:
    """Return the translation table of torch.onnx.export; needs the package onnxscript."""
    from onnxscript import INT64
    from onnxscript import opset20 as op

    def constant(*numbers, kind):
        return op.Constant(**{kind: list(numbers)})

    def suppress_in_onnx(boxes, scores, iou_threshold: float, score_threshold: float, box_offset: float, most: int):
        if box_offset:
            boxes = op.Add(boxes, constant(0.0, 0.0, box_offset, box_offset, kind="value_floats"))
        selected = op.NonMaxSuppression(
            boxes,
            scores,
            constant(most, kind="value_ints"),
            constant(iou_threshold, kind="value_floats"),
            constant(score_threshold, kind="value_floats"),
        )
        count = op.Shape(selected, start=0, end=1)
        ones = op.Expand(constant(1.0, kind="value_floats"), count)
        marks = op.ScatterND(op.ConstantOfShape(op.Shape(scores)), selected, ones)
        return op.Greater(marks, constant(0.5, kind="value_floats"))

    def pool_levels_in_onnx(maps, rois, levels, scales, height: int, width: int, sampling_ratio: int, aligned: bool):
        def align(level, which):
            return op.RoiAlign(
                maps[level],
                op.Slice(which, constant(1, kind="value_ints"), constant(5, kind="value_ints"), axis),
                op.Cast(op.Squeeze(op.Slice(which, zero, one, axis), axis), to=INT64.dtype),
                coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
                output_height=height,
                output_width=width,
                sampling_ratio=max(sampling_ratio, 0),
                spatial_scale=float(scales[level]),
            )

        zero, one = constant(0, kind="value_ints"), constant(1, kind="value_ints")
        axis = one
        if len(maps) == 1:
            return align(0, rois)
        pooled, place, start = [], None, zero
        for level in range(len(maps)):
            here = op.Equal(levels, constant(level, kind="value_ints"))
            rows = op.Squeeze(op.NonZero(here), zero)
            # One additional ROI, so that no level is empty.
            pooled.append(align(level, op.Gather(rois, op.Concat(rows, zero, axis=0), axis=0)))
            number = op.Cast(here, to=INT64.dtype)
            behind = op.Sub(op.Add(op.CumSum(number, op.Squeeze(zero)), start), one)
            of_level = op.Mul(behind, number)
            place = of_level if place is None else op.Add(place, of_level)
            start = op.Add(op.Add(start, op.Shape(rows)), one)
        return op.Gather(op.Concat(*pooled, axis=0), place, axis=0)

    def with_free_sides_in_onnx(x, sides):
        return op.Identity(x)

    ops = getattr(torch.ops, NAMESPACE)
    return {
        ops.suppress.default: suppress_in_onnx,
        ops.pool_levels.default: pool_levels_in_onnx,
        ops.with_free_sides.default: with_free_sides_in_onnx,
    }


def torchvision_decompositions() -> dict:
    """Return the decomposition table of ExportedProgram.run_decompositions: NMS and ROIAlign by torchvision's ops."""
    import torchvision.ops  # noqa: F401  registers the ops

    def suppress_in_torch(boxes, scores, iou_threshold, score_threshold, box_offset, most):
        groups, classes, count = scores.shape
        boxes = boxes[:, None].expand(groups, classes, count, 4).reshape(-1, 4).double()
        number = torch.arange(groups * classes, device=boxes.device).repeat_interleave(count)
        flat = scores.flatten()
        total = flat.shape[0]
        # Groups are moved apart. In float64 this does not change an IoU by more than float32 rounds it.
        reach = boxes.abs().max() * 2 + 2
        corners = boxes + (number * reach)[:, None]
        corners = torch.cat((corners[:, :2], corners[:, 2:] + box_offset), dim=1)
        # Two additional boxes, alone in their groups: torch.export assumes that a dynamic size is at least 2.
        more = torch.arange(2, device=boxes.device)
        far = (groups * classes + 1 + more)[:, None] * reach
        number = torch.cat((number, groups * classes + more))
        usable = torch.cat(((flat > score_threshold).nonzero().squeeze(1), total + more))
        corners = torch.cat((corners, torch.cat((far, far, far + 1, far + 1), dim=1)))
        ranked = torch.cat((flat.double(), flat.new_zeros(2).double()))
        kept = usable[torch.ops.torchvision.nms(corners[usable], ranked[usable], iou_threshold)]
        if most < 2**31 - 1:
            # not one_hot, for which torch.export would fix the batch size
            of_group = (number[kept][:, None] == torch.arange(groups * classes + 2, device=boxes.device)).long()
            rank = of_group.cumsum(0).gather(1, number[kept][:, None])
            kept = kept[rank.squeeze(1) <= most]
        marks = torch.zeros_like(ranked).index_put((kept,), ranked.new_ones(()))
        return marks[:total].reshape(scores.shape) > 0.5

    def pool_levels_in_torch(maps, rois, levels, scales, height, width, sampling_ratio, aligned):
        pooled, place, start = [], torch.zeros_like(levels), 0
        for level, (features, scale) in enumerate(zip(maps, scales, strict=True)):
            here = levels == level
            rows = here.nonzero().squeeze(1)
            # Two additional ROIs: torch.export assumes that a dynamic size is at least 2.
            rows_and_two = torch.cat((rows, rows.new_zeros(2)))
            pooled.append(
                torch.ops.torchvision.roi_align(
                    features, rois[rows_and_two], scale, height, width, sampling_ratio, aligned
                )
            )
            place = place + (here.cumsum(0) - 1 + start) * here
            start = start + rows.shape[0] + 2
        return torch.cat(pooled)[place]

    ops = getattr(torch.ops, NAMESPACE)
    return {ops.suppress.default: suppress_in_torch, ops.pool_levels.default: pool_levels_in_torch}
