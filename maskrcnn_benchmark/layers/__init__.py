"""Building blocks: compiled ops and their PyTorch equivalents, norms, losses, small modules."""

from maskrcnn_benchmark.layers.deform_conv import (
    DeformConv,
    DFConv2d,
    ModulatedDeformConv,
    ModulatedDeformConvPack,
    deform_conv,
    modulated_deform_conv,
)
from maskrcnn_benchmark.layers.iou_loss import IOULoss
from maskrcnn_benchmark.layers.nms import batched_nms, ml_nms, nms
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d, get_norm, group_norm
from maskrcnn_benchmark.layers.roi_align import ROIAlign, multilevel_roi_align, roi_align
from maskrcnn_benchmark.layers.roi_pool import ROIPool, roi_pool
from maskrcnn_benchmark.layers.scale import Scale
from maskrcnn_benchmark.layers.sigmoid_focal_loss import SigmoidFocalLoss, sigmoid_focal_loss
from maskrcnn_benchmark.layers.smooth_l1_loss import smooth_l1_loss
from maskrcnn_benchmark.layers.wrappers import BatchNorm2d, Conv2d, ConvTranspose2d, interpolate

__all__ = [
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "DFConv2d",
    "DeformConv",
    "FrozenBatchNorm2d",
    "IOULoss",
    "ModulatedDeformConv",
    "ModulatedDeformConvPack",
    "ROIAlign",
    "ROIPool",
    "Scale",
    "SigmoidFocalLoss",
    "batched_nms",
    "deform_conv",
    "get_norm",
    "group_norm",
    "interpolate",
    "ml_nms",
    "modulated_deform_conv",
    "multilevel_roi_align",
    "nms",
    "roi_align",
    "roi_pool",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]
