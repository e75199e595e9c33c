"""Extract one small map per region from feature maps, for masks.

Shapes: N images, C channels of the maps, R regions of all images together, S bins a side.
"""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.make_layers import group_norm_options, make_conv3x3
from maskrcnn_benchmark.modeling.poolers import make_pooler

# This import also registers ResNet50Conv5ROIFeatureExtractor for masks.
from maskrcnn_benchmark.modeling.roi_heads.box_head import roi_box_feature_extractors  # noqa: F401


class MaskRCNNFPNFeatureExtractor(nn.Module):
    """3x3 convolutions with ReLU (Mask R-CNN, figure 4 right).

    Args:
        pooler: Pooler of S x S bins.
        in_channels: C.
        channels: channels of each convolution.
        dilation: dilation of all convolutions.
        attention: maps the result to a map of its shape, such as SpatialAttention; None for none.
        use_gn, gn_options: GroupNorm after each convolution, see make_layers.

    Forward takes a list of maps (N, C, H_l, W_l) and N BoxLists and returns (R, channels[-1], S, S). `pooler` and
    `convolve` are its two halves.
    """

    def __init__(self, pooler, in_channels, channels, dilation=1, use_gn=False, attention=None, **gn_options):
        super().__init__()
        self.pooler = pooler
        self.spatialAtt = attention  # CenterMask's name
        self.names = [f"mask_fcn{i}" for i in range(1, len(channels) + 1)]
        for name, out_channels in zip(self.names, channels, strict=True):
            self.add_module(name, make_conv3x3(in_channels, out_channels, dilation, 1, use_gn, **gn_options))
            in_channels = out_channels
        self.out_channels = in_channels

    def forward(self, features, proposals):
        return self.convolve(self.pooler(features, proposals))

    def convolve(self, pooled):
        """Map pooled features (R, C, S, S) to (R, channels[-1], S, S)."""
        x = pooled
        for name in self.names:
            x = F.relu(getattr(self, name)(x))
        return x if self.spatialAtt is None else self.spatialAtt(x)


@registry.ROI_MASK_FEATURE_EXTRACTORS.register("MaskRCNNFPNFeatureExtractor")
def build_mask_rcnn_fpn(cfg, in_channels, attention=None):
    node = cfg.MODEL.ROI_MASK_HEAD
    return MaskRCNNFPNFeatureExtractor(
        make_pooler(cfg, "ROI_MASK_HEAD"),
        in_channels,
        node.CONV_LAYERS,
        node.DILATION,
        node.USE_GN,
        attention,
        **group_norm_options(cfg),
    )


def make_roi_mask_feature_extractor(cfg, in_channels):
    """Build the extractor that MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR names; in_channels are the backbone's."""
    return registry.ROI_MASK_FEATURE_EXTRACTORS[cfg.MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR](cfg, in_channels)
