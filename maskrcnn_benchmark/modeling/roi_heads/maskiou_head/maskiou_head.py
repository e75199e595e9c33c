"""Predict the IoU of predicted masks and objects, to score masks (Huang et al., Mask Scoring R-CNN, CVPR 2019).

Shapes: R regions of all images together, C channels of a pooled map, S bins a side, M pixels a side of a mask, K
classes with the background.

See loss.py and visible_share.py for its parts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.config.stages import classes_of_regions
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.make_layers import make_conv3x3, make_fc
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import MaskTargets
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.loss import MaskIoULoss


def join_masks(pooled: Tensor, masks: Tensor) -> Tensor:
    """Append masks (R, 1, M, M), max-pooled to S x S, to pooled features (R, C, S, S): (R, C + 1, S, S)."""
    masks = F.max_pool2d(masks.to(pooled.dtype), masks.shape[-1] // pooled.shape[-1])
    return torch.cat((pooled, masks), dim=1)


class MaskIoUFeatureExtractor(nn.Module):
    """3x3 convolutions on features and mask, the last one of stride 2, and two linear layers, all with ReLU (figure 3).

    Args:
        in_channels: C.
        resolution: S.
        channels: channels of each convolution.
        hidden: units of both linear layers.
        he_init: initialize the linear layers by He's normal distribution instead of a uniform one.

    Forward takes pooled features (R, C, S, S) and mask probabilities (R, 1, M, M), M a multiple of S. It returns
    (R, hidden).
    """

    def __init__(self, in_channels, resolution, channels=(256, 256, 256, 256), hidden=1024, he_init=True):
        super().__init__()
        inputs, side = in_channels + 1, (resolution + 1) // 2
        self.convs = [f"maskiou_fcn{i}" for i in range(1, len(channels) + 1)]
        for name, outputs in zip(self.convs, channels, strict=True):
            stride = 2 if name == self.convs[-1] else 1
            self.add_module(name, make_conv3x3(inputs, outputs, stride=stride))
            inputs = outputs
        self.maskiou_fc1 = make_fc(inputs * side * side, hidden)
        self.maskiou_fc2 = make_fc(hidden, hidden)
        if he_init:
            for layer in (self.maskiou_fc1, self.maskiou_fc2):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.out_channels = hidden

    def forward(self, pooled: Tensor, masks: Tensor) -> Tensor:
        x = join_masks(pooled, masks)
        for name in self.convs:
            x = F.relu(getattr(self, name)(x))
        x = F.relu(self.maskiou_fc1(x.flatten(start_dim=1)))
        return F.relu(self.maskiou_fc2(x))


class MaskIoUPredictor(nn.Module):
    """One linear layer: (R, in_channels) to an IoU per class (R, K), not limited to 0..1. Class 0 is never used."""

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.maskiou = nn.Linear(in_channels, num_classes)
        nn.init.normal_(self.maskiou.weight, std=0.01)
        nn.init.zeros_(self.maskiou.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.maskiou(x)


class ROIMaskIoUHead(nn.Module):
    """Extract features of regions and their masks, and predict the IoU of mask and object.

    Args:
        feature_extractor: (pooled features, mask probabilities) -> (R, hidden).
        predictor: (R, hidden) -> (R, K).
        loss: MaskIoULoss.

    Forward takes pooled features (R, C, S, S), those that the mask head's first convolution reads, mask logits
    (R, K, M, M) and labels (R,), the classes whose masks are scored. It returns IoUs (R, K). Gradients reach the mask.
    """

    def __init__(self, feature_extractor: nn.Module, predictor: nn.Module, loss: MaskIoULoss):
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.loss = loss

    def forward(self, pooled: Tensor, mask_logits: Tensor, labels: Tensor) -> Tensor:
        masks = mask_logits[torch.arange(len(labels), device=labels.device), labels][:, None].float().sigmoid()
        return self.predictor(self.feature_extractor(pooled, masks)).float()

    def train_loss(self, pooled: Tensor, mask_logits: Tensor, objects: MaskTargets) -> Tensor:
        """Return the scalar loss of R regions and their objects."""
        return self.loss(self(pooled, mask_logits, objects.labels), mask_logits, objects)

    @torch.no_grad()
    def of_labels(self, pooled: Tensor, mask_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the IoU (R,) of each region's own class."""
        return self(pooled, mask_logits, labels).gather(1, labels[:, None]).squeeze(1)


@registry.ROI_MASKIOU_FEATURE_EXTRACTORS.register("MaskIoUFeatureExtractor")
def build_maskiou_feature_extractor(cfg, in_channels):
    return MaskIoUFeatureExtractor(
        in_channels,
        cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION,
        cfg.MODEL.ROI_MASKIOU_HEAD.CONV_LAYERS,
        he_init=get_convention(cfg.MODEL.CONVENTION).mask_scoring_he_init,
    )


@registry.ROI_MASKIOU_PREDICTOR.register("MaskIoUPredictor")
def build_maskiou_predictor(cfg, in_channels):
    return MaskIoUPredictor(in_channels, classes_of_regions(cfg.MODEL)[1])


def build_roi_maskiou_head(cfg, in_channels) -> ROIMaskIoUHead:
    """Build the MaskIoU head of a config; in_channels are the backbone's."""
    node = cfg.MODEL.ROI_MASKIOU_HEAD
    extractor = registry.ROI_MASKIOU_FEATURE_EXTRACTORS[node.FEATURE_EXTRACTOR](cfg, in_channels)
    channels = registry.channels_of(extractor, f"MODEL.ROI_MASKIOU_HEAD.FEATURE_EXTRACTOR {node.FEATURE_EXTRACTOR!r}")
    predictor = registry.ROI_MASKIOU_PREDICTOR[node.PREDICTOR](cfg, channels)
    return ROIMaskIoUHead(extractor, predictor, MaskIoULoss(cfg.MODEL.MASKIOU_LOSS_WEIGHT))
