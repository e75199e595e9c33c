"""Predict one mask per class from a region's features.

Shapes: R regions, C channels, S pixels a side of the incoming map, K classes with the background.
"""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.config.stages import classes_of_regions
from maskrcnn_benchmark.layers.conv import Conv2d, ConvTranspose2d
from maskrcnn_benchmark.modeling import registry


class MaskRCNNC4Predictor(nn.Module):
    """Upsampling by two and a 1x1 convolution: (R, C, S, S) to mask logits (R, K, 2 S, 2 S).

    Args:
        in_channels: C.
        conv_channels: channels of the upsampled map.
        num_classes: K; the mask of class 0 is never used.
        logits_std: standard deviation of the initial 1x1 weights; 0 uses He's initialization.
    """

    def __init__(self, in_channels, conv_channels, num_classes, logits_std=0.0):
        super().__init__()
        self.conv5_mask = ConvTranspose2d(in_channels, conv_channels, 2, 2)
        self.mask_fcn_logits = Conv2d(conv_channels, num_classes, 1)
        _initialize(self, logits_std)

    def forward(self, x):
        return self.mask_fcn_logits(F.relu(self.conv5_mask(x)))


class MaskRCNNConv1x1Predictor(nn.Module):
    """A 1x1 convolution: (R, C, S, S) to mask logits (R, K, S, S). logits_std is as in MaskRCNNC4Predictor."""

    def __init__(self, in_channels, num_classes, logits_std=0.0):
        super().__init__()
        self.mask_fcn_logits = Conv2d(in_channels, num_classes, 1)
        _initialize(self, logits_std)

    def forward(self, x):
        return self.mask_fcn_logits(x)


def _initialize(predictor, logits_std):
    for layer in predictor.children():
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    if logits_std > 0:
        nn.init.normal_(predictor.mask_fcn_logits.weight, std=logits_std)


@registry.ROI_MASK_PREDICTOR.register("MaskRCNNC4Predictor")
def build_mask_rcnn_c4_predictor(cfg, in_channels):
    return MaskRCNNC4Predictor(
        in_channels,
        cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS[-1],
        classes_of_regions(cfg.MODEL)[1],
        get_convention(cfg.MODEL.CONVENTION).mask_logits_std,
    )


@registry.ROI_MASK_PREDICTOR.register("MaskRCNNConv1x1Predictor")
def build_mask_rcnn_conv1x1_predictor(cfg, in_channels):
    logits_std = get_convention(cfg.MODEL.CONVENTION).mask_logits_std
    return MaskRCNNConv1x1Predictor(in_channels, classes_of_regions(cfg.MODEL)[1], logits_std)


def make_roi_mask_predictor(cfg, in_channels):
    """Build the predictor that MODEL.ROI_MASK_HEAD.PREDICTOR names; in_channels are the extractor's."""
    return registry.ROI_MASK_PREDICTOR[cfg.MODEL.ROI_MASK_HEAD.PREDICTOR](cfg, in_channels)
