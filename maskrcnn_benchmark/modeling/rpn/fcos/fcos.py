"""Fully convolutional one-stage detection (Tian et al., ICCV 2019), as in VoVNet-FCOS and in FCOS upstream.

Shapes: N images, L levels, C channels of every FPN level, K foreground classes, P_l locations of a level.

See targets.py (assignment), loss.py, ../dense_detector.py and ../dense_post_process.py for its parts.
"""

from __future__ import annotations

import math

from torch import nn

from maskrcnn_benchmark.config.stages import has_roi_heads
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.layers.scale import Scale
from maskrcnn_benchmark.modeling.make_layers import num_classes_of
from maskrcnn_benchmark.modeling.rpn.anchor_generator import PointGenerator
from maskrcnn_benchmark.modeling.rpn.dense_detector import DenseDetector
from maskrcnn_benchmark.modeling.rpn.fcos.inference import make_fcos_postprocessor
from maskrcnn_benchmark.modeling.rpn.fcos.loss import make_fcos_loss_evaluator


class FCOSHead(nn.Module):
    """Classification and regression towers shared by all levels (section 3.2).

    Args:
        in_channels: channels C of every FPN level.
        num_classes: foreground classes K; there is no background channel.
        strides: stride of each level in pixels of the network input.
        num_convs: 3x3 convolutions per tower, each with GroupNorm and ReLU.
        tower_channels: channels inside the towers; a multiple of GroupNorm's 32 groups, at least 64.
        prior_prob: probability of every class at every location before training (focal loss paper, 3.3).
        centerness_on_reg: predict centerness from the regression tower instead of the classification tower.
        normalize_distances: predict relu(x) strides of the level instead of exp(x) pixels.
        deformable_last: the last convolution of each tower is a modulated deformable one.

    Forward takes L maps (N, C, H_l, W_l) and returns three lists of L maps: logits (N, K, H_l, W_l),
    distances (N, 4, H_l, W_l) to left, top, right, bottom in pixels of the network input, and centerness logits
    (N, 1, H_l, W_l).
    """

    def __init__(
        self,
        in_channels,
        num_classes,
        strides,
        num_convs=4,
        tower_channels=256,
        prior_prob=0.01,
        centerness_on_reg=False,
        normalize_distances=False,
        deformable_last=False,
    ):
        super().__init__()
        if tower_channels % 32 or tower_channels == 32:
            # A group of one channel has nothing to normalize on a map of one cell, such as P7 of a small image.
            raise ValueError(
                f"FCOS towers have GroupNorm of 32 groups and require 64, 96, ... channels, got {tower_channels}; set "
                "MODEL.FCOS.TOWER_CHANNELS or, if that is 0, the backbone's BACKBONE_OUT_CHANNELS"
            )
        self.strides = tuple(strides)
        self.centerness_on_reg = centerness_on_reg
        self.normalize_distances = normalize_distances
        self.cls_tower = _tower(in_channels, tower_channels, num_convs, deformable_last)
        self.bbox_tower = _tower(in_channels, tower_channels, num_convs, deformable_last)
        self.cls_logits = Conv2d(tower_channels, num_classes, 3, padding=1)
        self.bbox_pred = Conv2d(tower_channels, 4, 3, padding=1)
        self.centerness = Conv2d(tower_channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale(1.0) for _ in self.strides)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, features):
        logits, distances, centerness = [], [], []
        for feature, scale, stride in zip(features, self.scales, self.strides, strict=True):
            cls_tower = self.cls_tower(feature)
            bbox_tower = self.bbox_tower(feature)
            logits.append(self.cls_logits(cls_tower))
            centerness.append(self.centerness(bbox_tower if self.centerness_on_reg else cls_tower))
            # In half precision exp overflows above 11, at distances of 65,504 pixels.
            raw = scale(self.bbox_pred(bbox_tower)).float()
            distances.append(raw.relu() * stride if self.normalize_distances else raw.exp())
        return logits, distances, centerness


def _tower(in_channels, channels, num_convs, deformable_last):
    layers = []
    for i in range(num_convs):
        inputs = in_channels if i == 0 else channels
        if deformable_last and i == num_convs - 1:
            layers += [DFConv2d(inputs, channels, bias=True)]
        else:
            layers += [Conv2d(inputs, channels, 3, padding=1)]
        layers += [nn.GroupNorm(32, channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


FCOSModule = DenseDetector  # the forks' name


def build_fcos(cfg, in_channels):
    """Build FCOS from a config; in_channels is the number of channels of every FPN level."""
    fcos = cfg.MODEL.FCOS
    head = FCOSHead(
        in_channels,
        num_classes=num_classes_of(cfg, "FCOS") - 1,
        strides=fcos.FPN_STRIDES,
        num_convs=fcos.NUM_CONVS,
        tower_channels=fcos.TOWER_CHANNELS or in_channels,
        prior_prob=fcos.PRIOR_PROB,
        centerness_on_reg=fcos.CENTERNESS_ON_REG,
        normalize_distances=fcos.NORM_REG_TARGETS,
        deformable_last=fcos.USE_DCN_IN_TOWER,
    )
    return DenseDetector(
        PointGenerator(fcos.FPN_STRIDES),
        head,
        make_fcos_loss_evaluator(cfg),
        make_fcos_postprocessor(cfg),
        make_fcos_postprocessor(cfg, is_train=True) if has_roi_heads(cfg.MODEL) else None,
    )
