"""Box head, the second stage of Faster R-CNN (Ren et al., NeurIPS 2015): class and box of every region.

Shapes: N images, L maps, C channels, R regions of all images together.

See roi_box_feature_extractors.py, roi_box_predictors.py, loss.py and inference.py for its parts.
"""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import make_roi_box_post_processor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import make_roi_box_loss_evaluator
from maskrcnn_benchmark.modeling.roi_heads.box_head.roi_box_feature_extractors import make_roi_box_feature_extractor
from maskrcnn_benchmark.modeling.roi_heads.box_head.roi_box_predictors import make_roi_box_predictor
from maskrcnn_benchmark.modeling.roi_heads.stage import Stage, single_stage


class ROIBoxHead(nn.Module):
    """Extract features, predict, and return losses or detections.

    Args:
        feature_extractor: (maps, BoxLists) -> (R, ...).
        predictor: (R, ...) -> class logits and box codes.
        loss: FastRCNNLoss.
        post_processor: PostProcessor.

    Forward takes L maps (N, C, H_l, W_l) and N BoxLists of proposals.

    Args:
        targets: in training, N BoxLists with the field "labels".
        output_sizes: in evaluation, optionally N sizes (width, height) of images in which NMS runs.

    Returns:
        (x, boxes, losses), x being the extractor's output. In training, boxes are the sampled regions with the field
        "labels", and losses are the scalars loss_classifier and loss_box_reg. In evaluation, boxes are the detections,
        and losses are {}.

    `candidates` and `select` are the two halves of evaluation. Test-time augmentation joins the candidates of several
    views of an image in between.
    """

    def __init__(self, feature_extractor, predictor, loss, post_processor):
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.loss = loss
        self.post_processor = post_processor

    def forward(self, features, proposals, targets=None, output_sizes=None):
        if self.training:
            regions = self.loss.subsample(proposals, targets)
            x, class_logits, box_regression = self.predict(features, regions)
            return x, regions, self.losses(class_logits, box_regression, regions)
        x, class_logits, box_regression = self.predict(features, proposals)
        with torch.no_grad():
            return x, self.post_processor((class_logits, box_regression), proposals, output_sizes), {}

    def predict(self, features, regions):
        """Return x, class logits and box codes of N BoxLists, as the predictor computes them."""
        x = self.feature_extractor(features, regions)
        return x, *self.predictor(x)

    def losses(self, class_logits, box_regression, regions):
        """Return the two losses by name, for regions sampled by `loss.subsample` and their predictions."""
        loss_classifier, loss_box_reg = self.loss(class_logits, box_regression, regions)
        return {"loss_classifier": loss_classifier, "loss_box_reg": loss_box_reg}

    @torch.no_grad()
    def candidates(self, features, proposals):
        _, class_logits, box_regression = self.predict(features, proposals)
        return self.post_processor.candidates((class_logits, box_regression), proposals)

    def select(self, candidates):
        return self.post_processor.select(candidates)


def build_roi_box_head(cfg, in_channels, stage: Stage | None = None) -> ROIBoxHead:
    """Build the box head of a config; in_channels are the backbone's. `stage` is a cascade's, or None."""
    stage = stage or single_stage(cfg)
    extractor = make_roi_box_feature_extractor(cfg, in_channels)
    name = cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR
    channels = registry.channels_of(extractor, f"MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR {name!r}")
    predictor = make_roi_box_predictor(cfg, channels)
    loss, post_processor = make_roi_box_loss_evaluator(cfg, stage), make_roi_box_post_processor(cfg, stage)
    return ROIBoxHead(extractor, predictor, loss, post_processor)
