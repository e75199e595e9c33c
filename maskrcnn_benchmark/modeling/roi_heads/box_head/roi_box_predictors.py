"""Predict class scores and box codes from a region's features.

Shapes: R regions, C channels, K classes with the background.
"""

from __future__ import annotations

from torch import nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.make_layers import num_classes_of


class BoxPredictor(nn.Module):
    """Two linear layers (Fast R-CNN, section 2.1).

    Args:
        in_channels: C.
        num_box_classes: K if every class has its own box code; 2 (background and foreground) if all classes share one.

    Forward takes (R, C), or maps (R, C, h, w), which are averaged. It returns class logits (R, K) and codes
    (R, 4 * num_box_classes) for BoxCoder.
    """

    def __init__(self, in_channels, num_classes, num_box_classes):
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, num_box_classes * 4)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        if x.dim() == 4:
            x = x.mean(dim=(2, 3))
        return self.cls_score(x), self.bbox_pred(x)


@registry.ROI_BOX_PREDICTOR.register("FastRCNNPredictor")
@registry.ROI_BOX_PREDICTOR.register("FPNPredictor")
def build_box_predictor(cfg, in_channels):
    num_classes = num_classes_of(cfg, "ROI_BOX_HEAD")
    shared = cfg.MODEL.CLS_AGNOSTIC_BBOX_REG or cfg.MODEL.CASCADE_ON
    return BoxPredictor(in_channels, num_classes, 2 if shared else num_classes)


def make_roi_box_predictor(cfg, in_channels):
    """Build the predictor that MODEL.ROI_BOX_HEAD.PREDICTOR names; in_channels are the extractor's."""
    return registry.ROI_BOX_PREDICTOR[cfg.MODEL.ROI_BOX_HEAD.PREDICTOR](cfg, in_channels)
