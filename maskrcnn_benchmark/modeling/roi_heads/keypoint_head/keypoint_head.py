"""The keypoint branch of Mask R-CNN (He et al., ICCV 2017, section 5).

Shapes: N images, L maps, C channels, R regions of all images together.

Read on in roi_keypoint_feature_extractors.py, roi_keypoint_predictors.py, loss.py and inference.py.
"""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import make_roi_keypoint_post_processor
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.loss import make_roi_keypoint_loss_evaluator
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.roi_keypoint_feature_extractors import (
    make_roi_keypoint_feature_extractor,
)
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.roi_keypoint_predictors import make_roi_keypoint_predictor


class ROIKeypointHead(nn.Module):
    """Features, heat maps, and the loss or keypoints.

    Args:
        feature_extractor: (maps, BoxLists) -> (R, C', S, S).
        predictor: (R, C', S, S) -> heat maps.
        loss: KeypointRCNNLoss.
        post_processor: KeypointPostProcessor.

    Forward takes L maps (N, C, H_l, W_l), N BoxLists and, in training, N BoxLists with fields "labels" and
    "keypoints". It returns (x, boxes, losses): x the extractor's output; in training the boxes as they came and the
    scalar loss_kp; in evaluation the boxes with field "keypoints" and {}. In training it draws its own regions.
    `heat_maps` (R, K, M, M) and `attach` are the two halves of evaluation, for those who average the heat maps of
    several views of an image in between.
    """

    def __init__(self, feature_extractor, predictor, loss, post_processor):
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.loss = loss
        self.post_processor = post_processor

    def forward(self, features, boxes, targets=None):
        if not self.training:
            x = self.feature_extractor(features, boxes)
            with torch.no_grad():
                return x, self.post_processor(self.predictor(x), boxes), {}
        regions = self.loss.subsample(boxes, targets)
        x = self.feature_extractor(features, regions)
        return x, boxes, {"loss_kp": self.loss(regions, self.predictor(x))}

    @torch.no_grad()
    def heat_maps(self, features, boxes):
        return self.predictor(self.feature_extractor(features, boxes))

    def attach(self, heat_maps, boxes):
        return self.post_processor(heat_maps, boxes)


def build_roi_keypoint_head(cfg, in_channels, box_extractor=None) -> ROIKeypointHead:
    """The keypoint head of a config; in_channels are the backbone's.

    box_extractor: the box head's, to be shared; None gives the keypoint head its own.
    """
    extractor = box_extractor if box_extractor is not None else make_roi_keypoint_feature_extractor(cfg, in_channels)
    name = cfg.MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR
    channels = registry.channels_of(extractor, f"MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR {name!r}")
    predictor = make_roi_keypoint_predictor(cfg, channels)
    loss, post_processor = make_roi_keypoint_loss_evaluator(cfg), make_roi_keypoint_post_processor(cfg)
    return ROIKeypointHead(extractor, predictor, loss, post_processor)
