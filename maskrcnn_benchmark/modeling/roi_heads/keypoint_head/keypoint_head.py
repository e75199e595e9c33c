"""Keypoint branch of Mask R-CNN (He et al., ICCV 2017, section 5).

Shapes: N images, L maps, C channels, R regions of all images together.

See roi_keypoint_feature_extractors.py, roi_keypoint_predictors.py, loss.py and inference.py for its parts.
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
    """Extract features, predict heatmaps, and return the loss or keypoints.

    Args:
        feature_extractor: (maps, BoxLists) -> (R, C', S, S).
        predictor: (R, C', S, S) -> heatmaps.
        loss: KeypointRCNNLoss.
        post_processor: KeypointPostProcessor.

    Forward takes L maps (N, C, H_l, W_l) and N BoxLists. In training the head samples regions from them.

    Args:
        targets: in training, N BoxLists with the fields "labels" and "keypoints".

    Returns:
        (x, boxes, losses), x being the extractor's output. In training, the boxes unchanged and the scalar loss_kp. In
        evaluation, the boxes with the field "keypoints" and {}.

    `heat_maps` (R, K, M, M) and `attach` are the two halves of evaluation. Test-time augmentation averages the
    heatmaps of several views of an image in between.
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
    """Build the keypoint head of a config; in_channels are the backbone's.

    Args:
        box_extractor: the box head's extractor, to be shared; None builds one for the keypoint head.
    """
    extractor = box_extractor if box_extractor is not None else make_roi_keypoint_feature_extractor(cfg, in_channels)
    name = cfg.MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR
    channels = registry.channels_of(extractor, f"MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR {name!r}")
    predictor = make_roi_keypoint_predictor(cfg, channels)
    loss, post_processor = make_roi_keypoint_loss_evaluator(cfg), make_roi_keypoint_post_processor(cfg)
    return ROIKeypointHead(extractor, predictor, loss, post_processor)
