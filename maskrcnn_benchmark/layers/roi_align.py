"""ROIAlign (He et al., "Mask R-CNN", ICCV 2017). Kernels: csrc/cpu/roi_align.cpp, csrc/cuda/roi_align.cu.

Shapes: N images, C channels, L maps of a pyramid, H x W (H_l x W_l) pixels of a feature map, R ROIs, P x Q bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.native import library


def roi_align(
    input: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool = False,
) -> Tensor:
    """Average bilinear samples in every bin of every ROI.

    A sample more than one pixel outside the map counts as 0. A sample within that margin takes the border's value. A
    ROI with a NaN or infinite coordinate returns zeros.

    Args:
        input: (N, C, H, W), any floating dtype, contiguous or channels_last; sums are float32 (float64 for float64).
        rois: (R, 5) of a floating dtype: image index, then x1, y1, x2, y2 in pixels of the image. Or a list with one
            tensor (R_i, 4) per image: x1, y1, x2, y2. Half types are computed in float32. ROIs get no gradient.
        output_size: bins, (P, Q) or one number for both.
        spatial_scale: pixels of the map per pixel of the image, for instance 1 / 16.
        sampling_ratio: samples per bin and axis; 0 or less: ceil(ROI side / bins), at most the map's side + 2.
        aligned: pixel centers are at half-integers (detectron2). False: at integers, and a ROI's side is at least one
            pixel of the map (maskrcnn-benchmark).

    Returns:
        (R, C, P, Q) in the dtype and memory format of the input. The backward pass is always deterministic on the CPU,
        and on CUDA under torch.use_deterministic_algorithms.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or numbers are invalid.
        RuntimeError: an image index is outside 0..N-1 (on the CPU; the CUDA kernel returns zeros).
    """
    rois = stack_rois(rois, len(input))
    return multilevel_roi_align([input], rois, None, output_size, [spatial_scale], sampling_ratio, aligned)


def stack_rois(rois: Tensor | Sequence[Tensor], num_images: int) -> Tensor:
    """Concatenate the ROIs of a batch in one tensor, in a dtype that can hold pixel coordinates.

    Args:
        rois: a tensor, which keeps its shape, or a list with one tensor (R_i, 4) per image.
        num_images: N.

    Returns:
        (R, 5) with the image index in column 0, if a list was given. Half types become float32.

    Raises:
        ValueError: the list has more than N entries, or entries of another shape.
        TypeError: an entry of the list is not a tensor.
    """
    if not isinstance(rois, Tensor):
        if any(not isinstance(boxes, Tensor) for boxes in rois):
            raise TypeError(f"rois hold {[type(boxes).__name__ for boxes in rois]}; expected tensors (R_i, 4)")
        if len(rois) > num_images or not len(rois):
            raise ValueError(f"rois are a list of {len(rois)} for {num_images} images; expected one tensor each")
        if any(boxes.dim() != 2 or boxes.shape[1] != 4 for boxes in rois):
            raise ValueError(
                f"rois are a list of shapes {[tuple(boxes.shape) for boxes in rois]}; expected (R_i, 4): x1, y1, x2, y2"
            )
        boxes = torch.cat([_without_half(boxes) for boxes in rois])
        counts = torch.tensor([len(boxes) for boxes in rois])
        index = torch.arange(len(rois)).repeat_interleave(counts)
        return torch.cat((index.to(boxes)[:, None], boxes), dim=1)
    return _without_half(rois)


def _without_half(rois: Tensor) -> Tensor:
    return rois.float() if rois.dtype in (torch.float16, torch.bfloat16) else rois


def multilevel_roi_align(
    inputs: list[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    output_size: int | tuple[int, int],
    spatial_scales: list[float],
    sampling_ratio: int,
    aligned: bool = False,
) -> Tensor:
    """Apply `roi_align` to a pyramid, each ROI on the map of its level.

    Args:
        inputs: L maps (N, C, H_l, W_l) of one dtype and device. They are read as channels_last if one of them is.
        rois, output_size, sampling_ratio, aligned: see roi_align.
        levels: (R,) integers, the map of each ROI, 0..L-1; None if there is one map.
        spatial_scales: pixels of each map per pixel of the image.

    Returns:
        (R, C, P, Q) in the order of the ROIs, with the dtype and memory format of the maps. Every map gets a gradient,
        even without ROIs.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or numbers are invalid.
        RuntimeError: an image index is outside 0..N-1 or a level outside 0..L-1 (on the CPU; the CUDA kernel returns
            zeros).
    """
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    rois = _without_half(rois)
    _check(inputs, rois, levels, height, width, spatial_scales)
    function = roi_align_twin
    if library.kernels_for(inputs[0].device):
        function = torch.ops.maskrcnn_benchmark.roi_align
    scales = [float(scale) for scale in spatial_scales]
    return function(list(inputs), rois.detach(), levels, scales, height, width, sampling_ratio, aligned)


class ROIAlign(nn.Module):
    """`roi_align` as a module: call (input, rois)."""

    def __init__(
        self, output_size: int | tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool = False
    ):
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )


def roi_align_twin(
    inputs: list[Tensor],
    rois: Tensor,
    levels: Tensor | None,
    spatial_scales: list[float],
    pooled_h: int,
    pooled_w: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Compute the op in plain PyTorch, differentiable by autograd: row weights @ map @ column weights."""
    dtype = torch.float64 if inputs[0].dtype == torch.float64 else torch.float32
    images, channels = inputs[0].shape[:2]
    maps = [level.to(dtype) for level in inputs]  # once, so that the gradient of half types is summed in float32, too
    numbers = [0] * len(rois) if levels is None else levels.tolist()
    # an empty slice of each map keeps it in the graph, even without ROIs
    pooled = [level[:0, :, :1, :1].expand(0, channels, pooled_h, pooled_w) for level in maps]
    for (image, x1, y1, x2, y2), number in zip(rois.to(dtype).unbind(0), numbers, strict=True):
        if not 0 <= image < images:
            raise RuntimeError(f"roi_align: a ROI has image index {float(image)}; the input holds {images} image(s)")
        if not 0 <= number < len(maps):
            raise RuntimeError(f"roi_align: a ROI has level {number}; there are {len(maps)} map(s)")
        level, scale = maps[number], spatial_scales[number]
        top, rows = _axis_weights(y1, y2, scale, aligned, pooled_h, sampling_ratio, level.shape[2])
        left, cols = _axis_weights(x1, x2, scale, aligned, pooled_w, sampling_ratio, level.shape[3])
        window = level[int(image), :, top : top + rows.shape[1], left : left + cols.shape[1]]
        pooled.append(torch.einsum("ph,chw,qw->cpq", rows, window, cols)[None])
    return torch.cat(pooled).to(inputs[0].dtype).contiguous(memory_format=_memory_format(inputs))


def _axis_weights(
    low: Tensor, high: Tensor, scale: float, aligned: bool, pooled: int, sampling_ratio: int, size: int
) -> tuple[int, Tensor]:
    """Return the first pixel read along one axis, and each bin's weights (pooled, pixels) from there on."""
    offset = 0.5 if aligned else 0.0
    start = low * scale - offset
    length = high * scale - offset - start
    if not aligned:
        length = length.clamp(min=1)
    step = length / pooled
    grid = sampling_ratio
    if grid <= 0:
        count = float(step.ceil())
        grid = 0 if math.isnan(count) else int(max(0, min(count, size + 2)))
    bins = torch.arange(pooled, device=low.device, dtype=low.dtype)
    samples = torch.arange(grid, device=low.device, dtype=low.dtype)
    at = start + bins[:, None] * step + (samples + 0.5) * step / max(grid, 1)
    inside = (at >= -1) & (at <= size)
    if not inside.any():
        return 0, low.new_zeros((pooled, 1))
    at = at.clamp(0, size - 1)
    first, last = int(at[inside].min()), min(int(at[inside].max()) + 1, size - 1)
    pixels = torch.arange(first, last + 1, device=low.device, dtype=low.dtype)
    weights = (1 - (at[:, :, None] - pixels).abs()).clamp(min=0) * inside[:, :, None]
    return first, weights.nan_to_num(0).sum(1) / max(grid, 1)


def _is_channels_last(maps: Tensor) -> bool:
    """Detect channels_last as csrc/common/tensor.h does: maps contiguous in both senses count as contiguous."""
    return not maps.is_contiguous() and maps.is_contiguous(memory_format=torch.channels_last)


def _memory_format(inputs: list[Tensor]) -> torch.memory_format:
    return torch.channels_last if any(map(_is_channels_last, inputs)) else torch.contiguous_format


def _check(
    inputs: list[Tensor], rois: Tensor, levels: Tensor | None, height: int, width: int, spatial_scales: list[float]
) -> None:
    if not inputs or len(inputs) != len(spatial_scales) or (levels is None and len(inputs) > 1):
        raise ValueError(
            f"{len(inputs)} maps and {len(spatial_scales)} scales, {'no ' if levels is None else ''}levels; expected "
            "one scale per map, and levels if there are several maps"
        )
    first = inputs[0]
    for input, scale in zip(inputs, spatial_scales, strict=True):
        if input.dim() != 4:
            raise ValueError(f"input has shape {tuple(input.shape)}; expected (N, C, H, W)")
        if not input.is_floating_point():
            raise TypeError(f"input is {input.dtype}; expected a floating dtype")
        if input.shape[:2] != first.shape[:2] or input.dtype != first.dtype or input.device != first.device:
            raise ValueError(
                f"maps of {tuple(first.shape)} {first.dtype} {first.device} and {tuple(input.shape)} {input.dtype} "
                f"{input.device}; expected one batch, number of channels, dtype and device"
            )
        if not 0 < scale < math.inf:
            raise ValueError(f"spatial_scale is {scale}; expected a positive number")
        if 0 in input.shape[1:] or (input.shape[0] == 0 and rois.shape[0] > 0):
            raise ValueError(f"input is {tuple(input.shape)} for {rois.shape[0]} ROIs; expected maps with pixels")
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(f"rois have shape {tuple(rois.shape)}; expected (R, 5): image index, x1, y1, x2, y2")
    if rois.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"rois are {rois.dtype}; expected a floating dtype")
    if rois.device != first.device:
        raise ValueError(f"input is on {first.device}, rois on {rois.device}; expected one device")
    if levels is not None and (
        levels.shape != rois.shape[:1] or levels.is_floating_point() or levels.device != rois.device
    ):
        raise ValueError(
            f"levels are {levels.dtype} {tuple(levels.shape)} on {levels.device}; expected integers ({len(rois)},) on "
            f"{rois.device}"
        )
    if height < 1 or width < 1:
        raise ValueError(f"output_size is ({height}, {width}); expected at least one bin")


if library.declared():

    @torch.library.register_fake("maskrcnn_benchmark::roi_align")
    def _forward_fake(inputs, rois, levels, spatial_scales, pooled_h, pooled_w, sampling_ratio, aligned):
        size = (rois.shape[0], inputs[0].shape[1], pooled_h, pooled_w)
        return inputs[0].new_empty(size).contiguous(memory_format=_memory_format(inputs))

    @torch.library.register_fake("maskrcnn_benchmark::roi_align_backward")
    def _backward_fake(
        grad, rois, levels, images, sizes, spatial_scales, sampling_ratio, aligned, channels_last, deterministic
    ):
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        return [
            grad.new_empty((images, grad.shape[1], height, width)).contiguous(memory_format=memory_format)
            for height, width in zip(sizes[::2], sizes[1::2], strict=True)
        ]

    def _setup_context(ctx, inputs, output):
        maps, rois, levels, ctx.spatial_scales, _, _, ctx.sampling_ratio, ctx.aligned = inputs
        ctx.save_for_backward(rois, levels)
        ctx.images = maps[0].shape[0]
        ctx.sizes = [side for level in maps for side in level.shape[2:]]
        ctx.channels_last = _memory_format(maps) == torch.channels_last

    def _backward(ctx, grad):
        input_grads = torch.ops.maskrcnn_benchmark.roi_align_backward(
            grad,
            *ctx.saved_tensors,
            ctx.images,
            ctx.sizes,
            ctx.spatial_scales,
            ctx.sampling_ratio,
            ctx.aligned,
            ctx.channels_last,
            torch.are_deterministic_algorithms_enabled(),
        )
        return input_grads, None, None, None, None, None, None, None

    torch.library.register_autograd("maskrcnn_benchmark::roi_align", _backward, setup_context=_setup_context)
    library.forbid_gradients("roi_align_backward", instead="roi_align_twin")
