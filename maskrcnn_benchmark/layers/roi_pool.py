"""ROIPool (Girshick, "Fast R-CNN", ICCV 2015): max pooling in every bin of a region, computed by torchvision's op.

Shapes: N images, C channels, H x W pixels of the feature map, R ROIs, P x Q bins.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from maskrcnn_benchmark.layers.roi_align import stack_rois


def roi_pool(
    input: Tensor, rois: Tensor | Sequence[Tensor], output_size: int | tuple[int, int], spatial_scale: float
) -> Tensor:
    """Return maxima (R, C, P, Q); 0 for empty bins. Corners are rounded to pixels of the map, both inclusive.

    Args:
        input: (N, C, H, W) floating.
        rois: (R, 5) of a floating dtype: image index, then x1, y1, x2, y2 in pixels of the image. Or a list with one
            tensor (R_i, 4) per image. ROIs get no gradient.
        output_size: bins, (P, Q) or one number for both.
        spatial_scale: pixels of the map per pixel of the image, for instance 1 / 16.

    Raises:
        ImportError: torchvision is not installed.
    """
    from torchvision.ops import roi_pool as torchvision_roi_pool  # the import takes seconds

    rois = stack_rois(rois, len(input))
    # torchvision requires one dtype for both, and half types cannot hold pixel coordinates. A maximum is one of the
    # inputs, so converting it back is exact.
    maps = input.to(rois.dtype) if input.element_size() < rois.element_size() else input
    return torchvision_roi_pool(maps, rois.to(maps.dtype), output_size, spatial_scale).to(input.dtype)


class ROIPool(nn.Module):
    """`roi_pool` as a module: call (input, rois)."""

    def __init__(self, output_size: int | tuple[int, int], spatial_scale: float):
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
