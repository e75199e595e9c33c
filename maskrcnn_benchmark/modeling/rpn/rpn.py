"""Region proposal network (Ren et al., Faster R-CNN, section 3.1), and the builder of a detector's first stage.

Shapes: N images, L levels, C channels of every map, A anchors of a cell.

See anchor_generator.py, anchor_targets.py (assignment), loss.py and inference.py for its parts.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.box_coder import make_box_coder
from maskrcnn_benchmark.modeling.rpn.anchor_generator import make_anchor_generator
from maskrcnn_benchmark.modeling.rpn.fcos.fcos import build_fcos
from maskrcnn_benchmark.modeling.rpn.inference import make_rpn_postprocessor
from maskrcnn_benchmark.modeling.rpn.loss import make_rpn_loss_evaluator
from maskrcnn_benchmark.modeling.rpn.retinanet.retinanet import build_retinanet


class RPNHead(nn.Module):
    """A 3x3 convolution with ReLU and two 1x1 convolutions, shared by all levels.

    Args:
        in_channels: channels C of every map.
        num_anchors: anchors A of a cell.

    Forward takes L maps (N, C, H_l, W_l) and returns two lists of L maps: objectness logits (N, A, H_l, W_l) and box
    codes (N, 4 A, H_l, W_l), channels grouped by anchor.
    """

    def __init__(self, in_channels: int, num_anchors: int):
        super().__init__()
        self.conv = Conv2d(in_channels, in_channels, 3, padding=1)
        self.cls_logits = Conv2d(in_channels, num_anchors, 1)
        self.bbox_pred = Conv2d(in_channels, num_anchors * 4, 1)
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features):
        logits, codes = [], []
        for feature in features:
            hidden = F.relu(self.conv(feature))
            logits.append(self.cls_logits(hidden))
            codes.append(self.bbox_pred(hidden))
        return logits, codes


@registry.RPN_HEADS.register("SingleConvRPNHead")
def build_single_conv_rpn_head(cfg, in_channels, num_anchors):
    return RPNHead(in_channels, num_anchors)


class RPNModule(nn.Module):
    """Anchors, head, losses and proposals.

    Args:
        anchor_generator: AnchorGenerator.
        head: maps -> (logits, codes), as RPNHead.
        loss: RPNLoss.
        box_selector_train, box_selector_test: RPNPostProcessor.
        rpn_only: there is no second stage, so training makes no proposals.

    Forward takes an ImageList, L feature maps (N, C, H_l, W_l) and, in training, N BoxLists.

    Returns:
        (proposals, losses). In training, N BoxLists with the field "objectness", ground truth included (None with
        rpn_only), and the losses of RPNLoss. In evaluation, N BoxLists with the field "objectness", and {}.
    """

    def __init__(self, anchor_generator, head, loss, box_selector_train, box_selector_test, rpn_only: bool = False):
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.loss = loss
        self.box_selector_train = box_selector_train
        self.box_selector_test = box_selector_test
        self.rpn_only = rpn_only

    def forward(self, images, features, targets=None):
        logits, codes = self.head(features)
        anchors = self.anchor_generator.grid_anchors([feature.shape[-2:] for feature in features])
        if not self.training:
            return self.box_selector_test(anchors, logits, codes, images.image_sizes), {}
        proposals = None
        if not self.rpn_only:
            proposals = self.box_selector_train(anchors, logits, codes, images.image_sizes, targets)
        anchors = torch.cat(anchors)
        visible = [self.anchor_generator.visible(anchors, size) for size in images.image_sizes]
        return proposals, self.loss(anchors, visible, logits, codes, targets)


def _build_rpn_module(cfg, in_channels):
    box_coder = make_box_coder(cfg, (1.0, 1.0, 1.0, 1.0))
    anchor_generator = make_anchor_generator(cfg)
    num_anchors = anchor_generator.num_anchors_per_location()[0]
    return RPNModule(
        anchor_generator,
        registry.RPN_HEADS[cfg.MODEL.RPN.RPN_HEAD](cfg, in_channels, num_anchors),
        make_rpn_loss_evaluator(cfg, box_coder),
        make_rpn_postprocessor(cfg, box_coder, is_train=True),
        make_rpn_postprocessor(cfg, box_coder, is_train=False),
        cfg.MODEL.RPN_ONLY,
    )


def build_rpn(cfg, in_channels):
    """Build the first stage: FCOS if MODEL.FCOS_ON, RetinaNet if MODEL.RETINANET_ON, otherwise RPN.

    Args:
        in_channels: channels of the backbone's maps.

    Raises:
        KeyError: MODEL.RPN.RPN_HEAD is not registered.
        ValueError: a value of the config does not fit the chosen stage.
    """
    if cfg.MODEL.FCOS_ON:
        return build_fcos(cfg, in_channels)
    if cfg.MODEL.RETINANET_ON:
        return build_retinanet(cfg, in_channels)
    return _build_rpn_module(cfg, in_channels)
