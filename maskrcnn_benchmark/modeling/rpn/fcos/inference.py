"""From FCOS outputs to detections.

Shapes: N images, L levels, K foreground classes, P_l locations of a level, D detections of an image.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.rpn.detections import best_detections, join_levels
from maskrcnn_benchmark.structures.bounding_box import BoxList


class FCOSPostProcessor(nn.Module):
    """Thresholds, decodes and suppresses.

    Args:
        score_thresh: a (location, class) pair is a candidate when its class probability, before
            centreness, exceeds this.
        pre_nms_top_n: candidates kept per level and image, by probability times centreness. 0 or less keeps all.
        nms_thresh: a box is suppressed by a better one of its class at IoU above this; 0 or less suppresses nothing.
        detections_per_img: detections kept per image; all that tie with the last one stay. 0 or less keeps all.
        box_offset: see Convention.

    Forward takes L tensors of locations (P_l, 2), L maps each of logits (N, K, H_l, W_l), distances
    (N, 4, H_l, W_l) in pixels and centreness (N, 1, H_l, W_l), and N pairs (height, width). It returns
    N BoxLists in the network input's pixels, best first, with fields "labels" (D,) int64 in 1..K and
    "scores" (D,), the root of probability times centreness.
    """

    def __init__(self, score_thresh, pre_nms_top_n, nms_thresh, detections_per_img, box_offset=1.0):
        super().__init__()
        self.score_thresh = score_thresh
        self.pre_nms_top_n = pre_nms_top_n
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.box_offset = box_offset

    def forward(self, locations, logits, distances, centerness, image_sizes) -> list[BoxList]:
        candidates = self.candidates(locations, logits, distances, centerness, image_sizes)
        return [self.select(boxes) for boxes in candidates]

    def candidates(self, locations, logits, distances, centerness, image_sizes) -> list[BoxList]:
        """The best (location, class) pairs above the threshold, as N BoxLists like forward's, in no order."""
        levels = [self._candidates(*level) for level in zip(locations, logits, distances, centerness, strict=True)]
        return join_levels(levels, image_sizes, self.box_offset)

    def select(self, candidates: BoxList) -> BoxList:
        """Detections of one image: the best of its candidates after suppression, class by class."""
        return best_detections(candidates, self.nms_thresh, self.detections_per_img)

    def _candidates(self, locations, logits, distances, centerness):
        """Per image: boxes (c, 4), scores (c,) and labels (c,) of one level, c at most pre_nms_top_n."""
        num_images, num_classes = logits.shape[:2]
        logits = logits.permute(0, 2, 3, 1).reshape(num_images, -1)
        distances = distances.permute(0, 2, 3, 1).reshape(num_images, -1, 4).float()
        centerness = centerness.reshape(num_images, -1).float().sigmoid()

        # The threshold on logits finds the few worth a sigmoid; a margin leaves the verdict to the sigmoid.
        threshold = self.score_thresh
        bound = math.log(threshold / (1 - threshold)) - 1e-2 if 0 < threshold < 1 else -math.inf
        results = []
        for image in range(num_images):
            index = (logits[image] > bound).nonzero().squeeze(1)
            probability = logits[image][index].float().sigmoid()
            passed = probability > threshold
            index, probability = index[passed], probability[passed]
            location = index // num_classes
            score = probability * centerness[image][location]
            if 0 < self.pre_nms_top_n < len(score):
                score, best = score.topk(self.pre_nms_top_n, sorted=False)
                index, location = index[best], location[best]
            point, distance = locations[location], distances[image][location]
            boxes = torch.cat((point - distance[:, :2], point + distance[:, 2:]), dim=1)
            results.append((boxes, score.sqrt(), index % num_classes + 1))
        return results


def make_fcos_postprocessor(cfg) -> FCOSPostProcessor:
    return FCOSPostProcessor(
        score_thresh=cfg.MODEL.FCOS.INFERENCE_TH,
        pre_nms_top_n=cfg.MODEL.FCOS.PRE_NMS_TOP_N,
        nms_thresh=cfg.MODEL.FCOS.NMS_TH,
        detections_per_img=cfg.TEST.DETECTIONS_PER_IMG,
        box_offset=get_convention(cfg.MODEL.CONVENTION).box_offset,
    )
