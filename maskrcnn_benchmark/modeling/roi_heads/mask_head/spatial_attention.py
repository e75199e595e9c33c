"""Spatial attention-guided mask branch (Lee & Park, CenterMask, CVPR 2020, section 3.2).

Shapes: R regions of all images together, C channels, S bins a side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_feature_extractors import build_mask_rcnn_fpn


class SpatialAttention(nn.Module):
    """Gate each position by the mean and the maximum over its channels (equation 3): (R, C, S, S) to the same shape.

    Args:
        he_init: initialize the convolution by He's normal distribution instead of torch's own.
    """

    def __init__(self, he_init: bool = True):
        super().__init__()
        self.conv = Conv2d(2, 1, 3, padding=1, bias=False)
        if he_init:
            nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        return x * self.conv(pooled).sigmoid()


@registry.ROI_MASK_FEATURE_EXTRACTORS.register("MaskRCNNFPNSpatialAttentionFeatureExtractor")
def build_spatial_attention_feature_extractor(cfg, in_channels):
    attention = SpatialAttention(get_convention(cfg.MODEL.CONVENTION).mask_scoring_he_init)
    return build_mask_rcnn_fpn(cfg, in_channels, attention)
