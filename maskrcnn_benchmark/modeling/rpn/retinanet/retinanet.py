"""RetinaNet (Lin et al., ICCV 2017, section 4).

Shapes: N images, L levels, C channels of every FPN level, A anchors of a cell, K foreground classes.

See ../anchor_generator.py, ../anchor_targets.py (assignment), loss.py, ../dense_detector.py and
../dense_post_process.py for its parts.
"""

from __future__ import annotations

import math

from torch import nn

from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.modeling.box_coder import make_box_coder
from maskrcnn_benchmark.modeling.make_layers import num_classes_of
from maskrcnn_benchmark.modeling.rpn.anchor_generator import make_anchor_generator_retinanet
from maskrcnn_benchmark.modeling.rpn.dense_detector import DenseDetector
from maskrcnn_benchmark.modeling.rpn.retinanet.inference import make_retinanet_postprocessor
from maskrcnn_benchmark.modeling.rpn.retinanet.loss import make_retinanet_loss_evaluator


class RetinaNetHead(nn.Module):
    """Classification and regression towers shared by all levels.

    Args:
        in_channels: channels C of every FPN level, and of the towers.
        num_anchors: anchors A of a cell.
        num_classes: foreground classes K; there is no background channel.
        num_convs: 3x3 convolutions per tower, each with ReLU.
        prior_prob: probability of every class at every location before training (section 3.3).

    Forward takes L maps (N, C, H_l, W_l) and returns two lists of L maps: class logits (N, A K, H_l, W_l) and box
    codes (N, 4 A, H_l, W_l), both with channels grouped by anchor.
    """

    def __init__(self, in_channels: int, num_anchors: int, num_classes: int, num_convs: int = 4, prior_prob=0.01):
        super().__init__()
        self.num_classes = num_classes
        self.cls_tower = _tower(in_channels, num_convs)
        self.bbox_tower = _tower(in_channels, num_convs)
        self.cls_logits = Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, features):
        logits = [self.cls_logits(self.cls_tower(feature)) for feature in features]
        codes = [self.bbox_pred(self.bbox_tower(feature)) for feature in features]
        return logits, codes


def _tower(channels, num_convs):
    layers = []
    for _ in range(num_convs):
        layers += [Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


RetinaNetModule = DenseDetector  # the forks' name


def build_retinanet(cfg, in_channels):
    """Build RetinaNet from a config; in_channels is the number of channels of every FPN level."""
    retinanet = cfg.MODEL.RETINANET
    box_coder = make_box_coder(cfg, (10.0, 10.0, 5.0, 5.0))
    anchor_generator = make_anchor_generator_retinanet(cfg)
    head = RetinaNetHead(
        in_channels,
        anchor_generator.num_anchors_per_location()[0],
        num_classes=num_classes_of(cfg, "RETINANET") - 1,
        num_convs=retinanet.NUM_CONVS,
        prior_prob=retinanet.PRIOR_PROB,
    )
    return DenseDetector(
        anchor_generator,
        head,
        make_retinanet_loss_evaluator(cfg, box_coder),
        make_retinanet_postprocessor(cfg, box_coder, is_train=False),
    )
