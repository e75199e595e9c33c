"""Extract one small map per region from feature maps, for keypoints.

Shapes: N images, C channels of the maps, R regions of all images together, S bins a side.
"""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.make_layers import make_conv3x3
from maskrcnn_benchmark.modeling.poolers import make_pooler


class KeypointRCNNFeatureExtractor(nn.Module):
    """3x3 convolutions with ReLU (Mask R-CNN, section 5).

    Args:
        pooler: Pooler of S x S bins.
        in_channels: C.
        channels: channels of each convolution.

    Forward takes a list of maps (N, C, H_l, W_l) and N BoxLists and returns (R, channels[-1], S, S).
    """

    def __init__(self, pooler, in_channels, channels):
        super().__init__()
        self.pooler = pooler
        self.names = [f"conv_fcn{i}" for i in range(1, len(channels) + 1)]
        for name, out_channels in zip(self.names, channels, strict=True):
            self.add_module(name, make_conv3x3(in_channels, out_channels))
            in_channels = out_channels
        self.out_channels = in_channels

    def forward(self, features, proposals):
        x = self.pooler(features, proposals)
        for name in self.names:
            x = F.relu(getattr(self, name)(x))
        return x


@registry.ROI_KEYPOINT_FEATURE_EXTRACTORS.register("KeypointRCNNFeatureExtractor")
def build_keypoint_rcnn_feature_extractor(cfg, in_channels):
    return KeypointRCNNFeatureExtractor(
        make_pooler(cfg, "ROI_KEYPOINT_HEAD"), in_channels, cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS
    )


def make_roi_keypoint_feature_extractor(cfg, in_channels):
    """Build the extractor that MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR names; in_channels are the backbone's."""
    return registry.ROI_KEYPOINT_FEATURE_EXTRACTORS[cfg.MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR](cfg, in_channels)
