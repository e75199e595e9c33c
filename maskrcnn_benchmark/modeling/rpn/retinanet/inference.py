"""From RetinaNet outputs to detections.

Shapes: N images, L levels, A anchors of a cell, P_l anchors of level l, K foreground classes.
"""

from __future__ import annotations

import math

from torch import nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.rpn.detections import best_detections, join_levels
from maskrcnn_benchmark.modeling.rpn.flatten import flatten_level
from maskrcnn_benchmark.structures.bounding_box import BoxList


class RetinaNetPostProcessor(nn.Module):
    """Thresholds, decodes and suppresses.

    Args:
        num_classes: K.
        score_thresh: an (anchor, class) pair is a candidate when its probability exceeds this.
        pre_nms_top_n: candidates kept per level and image. 0 or less keeps all.
        nms_thresh: a box is suppressed by a better one of its class at IoU above this; 0 or less suppresses nothing.
        detections_per_img: detections kept per image; all that tie with the last one stay. 0 or less keeps all.
        box_coder: BoxCoder.
        box_offset: see Convention.

    Forward takes L tensors of anchors (P_l, 4), L maps each of logits (N, A K, H_l, W_l) and box codes (N, 4 A, H_l,
    W_l), and N pairs (height, width). It returns N BoxLists in pixels of the network input, best first, with fields
    "labels" int64 in 1..K and "scores".
    """

    def __init__(
        self, num_classes, score_thresh, pre_nms_top_n, nms_thresh, detections_per_img, box_coder, box_offset=1.0
    ):
        super().__init__()
        self.num_classes = num_classes
        self.score_thresh = score_thresh
        self.pre_nms_top_n = pre_nms_top_n
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.box_coder = box_coder
        self.box_offset = box_offset

    def forward(self, anchors, logits, codes, image_sizes) -> list[BoxList]:
        return [self.select(boxes) for boxes in self.candidates(anchors, logits, codes, image_sizes)]

    def candidates(self, anchors, logits, codes, image_sizes) -> list[BoxList]:
        """The best (anchor, class) pairs above the threshold, as N BoxLists like forward's, in no order."""
        levels = [self._candidates(*level) for level in zip(anchors, logits, codes, strict=True)]
        return join_levels(levels, image_sizes, self.box_offset)

    def select(self, candidates: BoxList) -> BoxList:
        """Detections of one image: the best of its candidates after suppression, class by class."""
        return best_detections(candidates, self.nms_thresh, self.detections_per_img)

    def _candidates(self, anchors, logits, codes):
        """Per image: boxes (c, 4), scores (c,) and labels (c,) of one level, c at most pre_nms_top_n."""
        logits = flatten_level(logits, self.num_classes).flatten(1)
        codes = flatten_level(codes, 4).float()

        # The threshold on logits finds the few worth a sigmoid; a margin leaves the verdict to the sigmoid.
        threshold = self.score_thresh
        bound = math.log(threshold / (1 - threshold)) - 1e-2 if 0 < threshold < 1 else -math.inf
        results = []
        for image_logits, image_codes in zip(logits, codes, strict=True):
            index = (image_logits > bound).nonzero().squeeze(1)
            scores = image_logits[index].float().sigmoid()
            passed = scores > threshold
            index, scores = index[passed], scores[passed]
            if 0 < self.pre_nms_top_n < len(scores):
                scores, best = scores.topk(self.pre_nms_top_n, sorted=False)
                index = index[best]
            anchor = index // self.num_classes
            boxes = self.box_coder.decode(image_codes[anchor], anchors[anchor])
            results.append((boxes, scores, index % self.num_classes + 1))
        return results


def make_retinanet_postprocessor(cfg, rpn_box_coder, is_train: bool) -> RetinaNetPostProcessor:
    """is_train changes nothing: RetinaNet makes no boxes in training."""
    retinanet = cfg.MODEL.RETINANET
    return RetinaNetPostProcessor(
        num_classes=retinanet.NUM_CLASSES - 1,
        score_thresh=retinanet.INFERENCE_TH,
        pre_nms_top_n=retinanet.PRE_NMS_TOP_N,
        nms_thresh=retinanet.NMS_TH,
        detections_per_img=cfg.TEST.DETECTIONS_PER_IMG,
        box_coder=rpn_box_coder,
        box_offset=get_convention(cfg.MODEL.CONVENTION).box_offset,
    )
