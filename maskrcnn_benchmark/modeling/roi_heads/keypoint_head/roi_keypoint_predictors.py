"""Predict one heatmap per keypoint from a region's features.

Shapes: R regions, C channels, S pixels a side of the incoming map, K keypoints of an object.
"""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling import registry


class KeypointRCNNPredictor(nn.Module):
    """Learned, then bilinear upsampling, each by two: (R, C, S, S) to logits (R, K, 4 S, 4 S)."""

    def __init__(self, in_channels, num_keypoints):
        super().__init__()
        self.kps_score_lowres = nn.ConvTranspose2d(in_channels, num_keypoints, 4, stride=2, padding=1)
        nn.init.kaiming_normal_(self.kps_score_lowres.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.kps_score_lowres.bias)

    def forward(self, x):
        x = self.kps_score_lowres(x)
        size = (2 * x.shape[-2], 2 * x.shape[-1])
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@registry.ROI_KEYPOINT_PREDICTOR.register("KeypointRCNNPredictor")
def build_keypoint_rcnn_predictor(cfg, in_channels):
    return KeypointRCNNPredictor(in_channels, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES)


def make_roi_keypoint_predictor(cfg, in_channels):
    """Build the predictor that MODEL.ROI_KEYPOINT_HEAD.PREDICTOR names; in_channels are the extractor's."""
    return registry.ROI_KEYPOINT_PREDICTOR[cfg.MODEL.ROI_KEYPOINT_HEAD.PREDICTOR](cfg, in_channels)
