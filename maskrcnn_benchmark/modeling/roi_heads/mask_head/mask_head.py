"""Mask branch of Mask R-CNN (He et al., ICCV 2017).

Shapes: N images, L maps, C channels, R regions of all images together.

See roi_mask_feature_extractors.py, roi_mask_predictors.py, loss.py and inference.py for its parts.
"""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark.forks import keep_only_positive_boxes  # noqa: F401
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.host_waits import true_indices

# This import registers CenterMask's extractor.
from maskrcnn_benchmark.modeling.roi_heads.mask_head import spatial_attention  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import make_roi_mask_post_processor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import make_roi_mask_loss_evaluator
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_feature_extractors import make_roi_mask_feature_extractor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_predictors import make_roi_mask_predictor
from maskrcnn_benchmark.modeling.roi_heads.stage import Stage


class ROIMaskHead(nn.Module):
    """Extract features, predict mask logits, and return the loss or masks.

    Args:
        feature_extractor: (maps, BoxLists) -> (R, C', S, S).
        predictor: (R, C', S, S) -> mask logits.
        loss: MaskRCNNLoss.
        post_processor: MaskPostProcessor.
        share_box_features: feature_extractor is the box head's; training reuses its output.

    Forward takes L maps (N, C, H_l, W_l) and N BoxLists with the field "labels". Training uses only boxes with a label
    above 0.

    Args:
        targets: in training, N BoxLists with the fields "labels" and "masks".
        box_features: in training, the box head's features (R, ...) of the boxes.
        maskiou: ROIMaskIoUHead that scores the masks, or None. The extractor then has `pooler` and `convolve`.
        all_positive: in training, the labels are known to be above 0, as RegionSampler's are.

    Returns:
        (x, boxes, losses), x being the extractor's output. In training, the boxes unchanged, and the scalars loss_mask
        and, with maskiou, loss_maskiou. In evaluation, the boxes with the fields "mask" and, with maskiou,
        "mask_scores", and {}.

    Raises:
        ValueError: maskiou is given, but the box head's features are shared: it reads the mask head's pooled features.

    `predict` and `attach` are the two halves of evaluation. Test-time augmentation averages the masks of several
    views of an image in between.
    """

    def __init__(self, feature_extractor, predictor, loss, post_processor, share_box_features=False):
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.loss = loss
        self.post_processor = post_processor
        self.share_box_features = share_box_features

    def forward(self, features, boxes, targets=None, box_features=None, maskiou=None, all_positive=False):
        if maskiou is not None and self.share_box_features:
            raise ValueError(
                "the MaskIoU head reads the mask head's own pooled features, but this mask head shares the box head's; "
                "set MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR to False or MODEL.MASKIOU_ON to False"
            )
        if not self.training:
            x, pooled = self._extract(features, boxes, maskiou)
            with torch.no_grad():
                return x, self.attach(*self._score(x, pooled, boxes, maskiou), boxes), {}
        regions = boxes
        if not all_positive or self.share_box_features:
            positive = true_indices([boxlist.get_field("labels") > 0 for boxlist in boxes])
            regions = [boxlist[indices] for boxlist, indices in zip(boxes, positive, strict=True)]
        if self.share_box_features:
            of_images = box_features.split([len(boxlist) for boxlist in boxes])
            x = torch.cat([of_image[indices] for of_image, indices in zip(of_images, positive, strict=True)])
        else:
            x, pooled = self._extract(features, regions, maskiou)
        logits = self.predictor(x)
        if maskiou is None:
            return x, boxes, {"loss_mask": self.loss(regions, logits, targets)}
        objects = self.loss.targets(regions, targets)
        loss_mask, loss_maskiou = self.loss.cross_entropy(logits, objects), maskiou.train_loss(pooled, logits, objects)
        return x, boxes, {"loss_mask": loss_mask, "loss_maskiou": loss_maskiou}

    @torch.no_grad()
    def predict(self, features, boxes, maskiou=None):
        """Return the mask probabilities (R, 1, M, M) of detections, and their IoUs (R,), None without maskiou."""
        return self._score(*self._extract(features, boxes, maskiou), boxes, maskiou)

    def attach(self, probabilities, ious, boxes):
        """Add what `predict` returned to the detections."""
        return self.post_processor.attach(probabilities, boxes, ious)

    def _extract(self, features, boxes, maskiou):
        """Return the extractor's output, and with maskiou the pooled features that it is made from."""
        if maskiou is None:
            return self.feature_extractor(features, boxes), None
        pooled = self.feature_extractor.pooler(features, boxes)
        return self.feature_extractor.convolve(pooled), pooled

    def _score(self, x, pooled, boxes, maskiou):
        logits = self.predictor(x)
        probabilities = self.post_processor.probabilities(logits, boxes)
        if maskiou is None:
            return probabilities, None
        labels = torch.cat([detections.get_field("labels") for detections in boxes])
        return probabilities, maskiou.of_labels(pooled, logits, labels)


def build_roi_mask_head(cfg, in_channels, box_extractor=None, stage: Stage | None = None) -> ROIMaskHead:
    """Build the mask head of a config; in_channels are the backbone's.

    Args:
        box_extractor: the box head's extractor, to be shared; None builds one for the mask head.
    """
    extractor = box_extractor if box_extractor is not None else make_roi_mask_feature_extractor(cfg, in_channels)
    name = cfg.MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR
    channels = registry.channels_of(extractor, f"MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR {name!r}")
    predictor = make_roi_mask_predictor(cfg, channels)
    loss, post_processor = make_roi_mask_loss_evaluator(cfg, stage), make_roi_mask_post_processor(cfg)
    return ROIMaskHead(extractor, predictor, loss, post_processor, share_box_features=box_extractor is not None)
