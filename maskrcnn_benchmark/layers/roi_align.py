"""ROIAlign (He et al., "Mask R-CNN", ICCV 2017). Kernels: csrc/cpu/roi_align.cpp, csrc/cuda/roi_align.cu.

Shapes: N images, C channels, H x W pixels of the feature map, R ROIs, P x Q bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers import _native


def roi_align(
    input: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool = False,
) -> Tensor:
    """The mean of bilinear samples in every bin of every ROI.

    A sample more than one pixel outside the map counts as 0, one within that margin takes the border's value. A ROI
    with a NaN or infinite coordinate gives zeros.

    Args:
        input: (N, C, H, W), any floating dtype, contiguous or channels_last; sums are float32 (float64 for float64).
        rois: (R, 5) float32 or float64: image index, then x1, y1, x2, y2 in pixels of the image. They get no gradient.
        output_size: bins, (P, Q) or one number for both.
        spatial_scale: pixels of the map per pixel of the image, for instance 1 / 16.
        sampling_ratio: samples per bin and axis; 0 or less: ceil(ROI side / bins), at most the map's side + 2.
        aligned: pixel centres lie at half-integers (detectron2). False: at integers, and a ROI's side is at least one
            pixel of the map (maskrcnn-benchmark).

    Returns:
        (R, C, P, Q) in the dtype and memory format of the input. The backward pass is deterministic on the CPU always,
        on CUDA under torch.use_deterministic_algorithms.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices or numbers that do not fit.
        RuntimeError: an image index outside 0..N-1 (seen on the CPU; the CUDA kernel gives zeros).
    """
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    _check(input, rois, height, width, spatial_scale)
    if _native.kernels_for(input.device):
        op = torch.ops.maskrcnn_benchmark.roi_align
        return op(input, rois.detach(), float(spatial_scale), height, width, sampling_ratio, aligned)
    return roi_align_twin(input, rois.detach(), float(spatial_scale), height, width, sampling_ratio, aligned)


class ROIAlign(nn.Module):
    """`roi_align` with its numbers kept: call (input, rois)."""

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
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_h: int,
    pooled_w: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """The compiled op in plain PyTorch, differentiable by autograd: weights of rows @ map @ weights of columns."""
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    images, channels, height, width = input.shape
    maps = input.to(dtype)  # once, so that the gradient of half types is summed in float32 too
    pooled = []
    for image, x1, y1, x2, y2 in rois.to(dtype).unbind(0):
        if not 0 <= image < images:
            raise RuntimeError(f"roi_align: a ROI has image index {float(image)}; the input holds {images} image(s)")
        top, rows = _axis_weights(y1, y2, spatial_scale, aligned, pooled_h, sampling_ratio, height)
        left, cols = _axis_weights(x1, x2, spatial_scale, aligned, pooled_w, sampling_ratio, width)
        window = maps[int(image), :, top : top + rows.shape[1], left : left + cols.shape[1]]
        pooled.append(torch.einsum("ph,chw,qw->cpq", rows, window, cols))
    output = torch.stack(pooled) if pooled else input.new_zeros((0, channels, pooled_h, pooled_w)) + 0 * input.sum()
    memory_format = torch.channels_last if _is_channels_last(input) else torch.contiguous_format
    return output.to(input.dtype).contiguous(memory_format=memory_format)


def _axis_weights(
    low: Tensor, high: Tensor, scale: float, aligned: bool, pooled: int, sampling_ratio: int, size: int
) -> tuple[int, Tensor]:
    """First pixel read along one axis, and the weights (pooled, pixels) of it and its followers in every bin."""
    offset = 0.5 if aligned else 0.0
    start = low * scale - offset
    length = high * scale - offset - start
    if not aligned:
        length = length.clamp(min=1)
    step = length / pooled
    grid = sampling_ratio
    if grid <= 0:
        wanted = float(step.ceil())
        grid = 0 if math.isnan(wanted) else int(max(0, min(wanted, size + 2)))
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
    """As csrc/common/tensor.h: maps that are contiguous in both senses count as contiguous."""
    return not maps.is_contiguous() and maps.is_contiguous(memory_format=torch.channels_last)


def _check(input: Tensor, rois: Tensor, height: int, width: int, spatial_scale: float) -> None:
    if input.dim() != 4:
        raise ValueError(f"input has shape {tuple(input.shape)}; wanted (N, C, H, W)")
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(f"rois have shape {tuple(rois.shape)}; wanted (R, 5): image index, x1, y1, x2, y2")
    if not input.is_floating_point():
        raise TypeError(f"input is {input.dtype}; wanted a floating dtype")
    if rois.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"rois are {rois.dtype}; wanted float32 or float64 (half types cannot hold pixel coordinates)")
    if rois.device != input.device:
        raise ValueError(f"input is on {input.device}, rois on {rois.device}; wanted one device")
    if height < 1 or width < 1:
        raise ValueError(f"output_size is ({height}, {width}); wanted at least one bin")
    if not 0 < spatial_scale < math.inf:
        raise ValueError(f"spatial_scale is {spatial_scale}; wanted a positive number")
    if 0 in input.shape[1:] or (input.shape[0] == 0 and rois.shape[0] > 0):
        raise ValueError(f"input has shape {tuple(input.shape)} for {rois.shape[0]} ROIs; wanted maps with pixels")


if _native.declared():

    @torch.library.register_fake("maskrcnn_benchmark::roi_align")
    def _forward_fake(input, rois, spatial_scale, pooled_h, pooled_w, sampling_ratio, aligned):
        memory_format = torch.channels_last if _is_channels_last(input) else torch.contiguous_format
        size = (rois.shape[0], input.shape[1], pooled_h, pooled_w)
        return torch.empty(size, dtype=input.dtype, device=input.device, memory_format=memory_format)

    @torch.library.register_fake("maskrcnn_benchmark::roi_align_backward")
    def _backward_fake(grad, rois, input_size, spatial_scale, sampling_ratio, aligned, channels_last, deterministic):
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        return torch.empty(input_size, dtype=grad.dtype, device=grad.device, memory_format=memory_format)

    def _setup_context(ctx, inputs, output):
        input, rois, ctx.spatial_scale, _, _, ctx.sampling_ratio, ctx.aligned = inputs
        ctx.save_for_backward(rois)
        ctx.input_size = list(input.shape)
        ctx.channels_last = _is_channels_last(input)

    def _backward(ctx, grad):
        grad_input = torch.ops.maskrcnn_benchmark.roi_align_backward(
            grad,
            *ctx.saved_tensors,
            ctx.input_size,
            ctx.spatial_scale,
            ctx.sampling_ratio,
            ctx.aligned,
            ctx.channels_last,
            torch.are_deterministic_algorithms_enabled(),
        )
        return grad_input, None, None, None, None, None, None

    torch.library.register_autograd("maskrcnn_benchmark::roi_align", _backward, setup_context=_setup_context)
