"""Extract one vector, or one map, per region from feature maps.

Shapes: N images, C channels of the maps, R regions of all images together, S bins a side.

Each extractor takes a list of maps (N, C, H_l, W_l) and N BoxLists, and has `out_channels`.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.body import build_norm
from maskrcnn_benchmark.modeling.backbone.resnet import BLOCKS, make_stage
from maskrcnn_benchmark.modeling.make_layers import group_norm_options, make_conv3x3, make_fc
from maskrcnn_benchmark.modeling.poolers import make_pooler


class ResNet50Conv5ROIFeatureExtractor(nn.Module):
    """Apply ResNet's layer4 to pooled regions (Faster R-CNN with C4). Returns (R, out_channels, S / 2, S / 2).

    Args:
        pooler: Pooler.
        layer4: the stage, (R, C, S, S) to (R, out_channels, S / 2, S / 2).
        out_channels: channels of its output.
    """

    def __init__(self, pooler, layer4, out_channels):
        super().__init__()
        self.pooler = pooler
        self.head = nn.Sequential(OrderedDict(layer4=layer4))
        self.out_channels = out_channels

    def forward(self, features, proposals):
        return self.head(self.pooler(features, proposals))


@registry.ROI_BOX_FEATURE_EXTRACTORS.register("ResNet50Conv5ROIFeatureExtractor")
@registry.ROI_MASK_FEATURE_EXTRACTORS.register("ResNet50Conv5ROIFeatureExtractor")
def build_resnet50_conv5(cfg, in_channels):
    """Build layer4 on pooled regions. For masks, too, the pooler is ROI_BOX_HEAD's: the heads usually share it."""
    node = cfg.MODEL.RESNETS
    out_channels = node.RES2_OUT_CHANNELS * 8
    layer4 = make_stage(
        in_channels,
        node.NUM_GROUPS * node.WIDTH_PER_GROUP * 8,
        out_channels,
        blocks=3,
        norm=build_norm(cfg, default=BLOCKS[node.TRANS_FUNC]),
        stride=2,
        dilation=node.RES5_DILATION,
        num_groups=node.NUM_GROUPS,
        stride_in_1x1=node.STRIDE_IN_1X1,
    )
    return ResNet50Conv5ROIFeatureExtractor(make_pooler(cfg, "ROI_BOX_HEAD"), layer4, out_channels)


class FPN2MLPFeatureExtractor(nn.Module):
    """Two hidden layers. Returns (R, out_channels).

    Args:
        pooler: Pooler of S x S bins.
        in_features: C * S * S.
        out_channels: width of both layers.
        use_gn, gn_options: GroupNorm after each, see make_layers.
    """

    def __init__(self, pooler, in_features, out_channels, use_gn=False, **gn_options):
        super().__init__()
        self.pooler = pooler
        self.fc6 = make_fc(in_features, out_channels, use_gn, **gn_options)
        self.fc7 = make_fc(out_channels, out_channels, use_gn, **gn_options)
        self.out_channels = out_channels

    def forward(self, features, proposals):
        x = self.pooler(features, proposals).flatten(start_dim=1)
        x = F.relu(self.fc6(x))
        return F.relu(self.fc7(x))


@registry.ROI_BOX_FEATURE_EXTRACTORS.register("FPN2MLPFeatureExtractor")
def build_fpn_2mlp(cfg, in_channels):
    node = cfg.MODEL.ROI_BOX_HEAD
    return FPN2MLPFeatureExtractor(
        make_pooler(cfg, "ROI_BOX_HEAD"),
        in_channels * node.POOLER_RESOLUTION**2,
        node.MLP_HEAD_DIM,
        node.USE_GN,
        **group_norm_options(cfg),
    )


class FPNXconv1fcFeatureExtractor(nn.Module):
    """3x3 convolutions and a hidden layer (GroupNorm paper, section 4.2). Returns (R, out_channels).

    Args:
        pooler: Pooler of S x S bins.
        in_channels: C.
        resolution: S.
        num_convs, conv_channels, dilation: of the convolutions, each followed by ReLU.
        out_channels: width of the hidden layer.
        use_gn, gn_options: GroupNorm after each convolution, see make_layers.
    """

    def __init__(
        self,
        pooler,
        in_channels,
        resolution,
        num_convs,
        conv_channels,
        out_channels,
        dilation=1,
        use_gn=False,
        **gn_options,
    ):
        super().__init__()
        self.pooler = pooler
        self.xconvs = nn.Sequential()
        for _ in range(num_convs):
            # The list is flat because the forks' keys number convolutions, norms and ReLUs consecutively.
            self.xconvs.extend(
                make_conv3x3(
                    in_channels, conv_channels, dilation, 1, use_gn, use_relu=True, kaiming_init=False, **gn_options
                )
            )
            in_channels = conv_channels
        self.fc6 = make_fc(in_channels * resolution**2, out_channels)
        self.out_channels = out_channels

    def forward(self, features, proposals):
        x = self.xconvs(self.pooler(features, proposals))
        return F.relu(self.fc6(x.flatten(start_dim=1)))


@registry.ROI_BOX_FEATURE_EXTRACTORS.register("FPNXconv1fcFeatureExtractor")
def build_fpn_xconv_1fc(cfg, in_channels):
    node = cfg.MODEL.ROI_BOX_HEAD
    return FPNXconv1fcFeatureExtractor(
        make_pooler(cfg, "ROI_BOX_HEAD"),
        in_channels,
        node.POOLER_RESOLUTION,
        node.NUM_STACKED_CONVS,
        node.CONV_HEAD_DIM,
        node.MLP_HEAD_DIM,
        node.DILATION,
        node.USE_GN,
        **group_norm_options(cfg),
    )


def make_roi_box_feature_extractor(cfg, in_channels):
    """Build the extractor that MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR names; in_channels are the backbone's."""
    return registry.ROI_BOX_FEATURE_EXTRACTORS[cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR](cfg, in_channels)
