"""Turn the outputs of a one-stage head into detections.

Shapes: N images, L levels, P_l anchors of level l (boxes, or points), K foreground classes, D detections of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.host_waits import true_indices
from maskrcnn_benchmark.modeling.rpn.detections import best_detections, join_levels
from maskrcnn_benchmark.modeling.rpn.flatten import flatten_level
from maskrcnn_benchmark.structures.bounding_box import BoxList


class DensePostProcessor(nn.Module):
    """Threshold the scores, decode the boxes and apply NMS.

    Args:
        decode: (codes (c, 4), anchors (c, ...)) -> boxes (c, 4) in pixels of the network input.
        num_classes: foreground classes K.
        score_thresh: an (anchor, class) pair is a candidate if its class probability exceeds this.
        pre_nms_top_n: candidates kept per level and image, by score. 0 or less keeps all.
        nms_thresh: a box is suppressed by a better one of its class at an IoU above this; 0 or less disables NMS.
        detections_per_img: detections kept per image, and all that tie with the last one. 0 or less keeps all.
        box_offset: see Convention.
        score_root, best_first, clips: see Convention.dense_score_root, dense_best_first and dense_boxes_clipped.

    Forward takes lists over the levels.

    Args:
        anchors: L tensors (P_l, ...).
        outputs: the head's outputs, each a list of L maps: logits (N, A K, H_l, W_l), codes (N, 4 A, H_l, W_l) and
            optionally quality logits (N, A, H_l, W_l), whose sigmoid multiplies the class probability after the
            threshold.
        image_sizes: N pairs (height, width) of the images before padding.

    Returns:
        N BoxLists in pixels of the network input with the fields "labels" (D,) int64 in 1..K and "scores" (D,). A score
        is the class probability; with quality logits it is the product above, or with score_root its square root.
    """

    def __init__(
        self,
        decode: Callable[[Tensor, Tensor], Tensor],
        num_classes: int,
        score_thresh: float,
        pre_nms_top_n: int,
        nms_thresh: float,
        detections_per_img: int,
        box_offset: float = 1.0,
        score_root: bool = True,
        best_first: bool = True,
        clips: bool = True,
    ):
        super().__init__()
        self.decode = decode
        self.num_classes = num_classes
        self.score_thresh = score_thresh
        self.pre_nms_top_n = pre_nms_top_n
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.box_offset = box_offset
        self.score_root = score_root
        self.best_first = best_first
        self.clips = clips

    def forward(self, anchors, outputs, image_sizes) -> list[BoxList]:
        return self._best(self.candidates(anchors, outputs, image_sizes))

    def candidates(self, anchors, outputs, image_sizes) -> list[BoxList]:
        """Return the best (anchor, class) pairs above the threshold as N unsorted BoxLists, like forward's."""
        logits, *others = outputs
        levels = zip(self._above_threshold(logits), anchors, *others, strict=True)
        return join_levels(
            [self._level_candidates(*level) for level in levels], image_sizes, self.box_offset, self.clips
        )

    def select(self, candidates: BoxList) -> BoxList:
        """Return one image's detections: the best of its candidates after NMS by class."""
        return self._best([candidates])[0]

    def _best(self, candidates: list[BoxList]) -> list[BoxList]:
        return best_detections(candidates, self.nms_thresh, self.detections_per_img, self.best_first)

    def _above_threshold(self, logits) -> list[list[tuple[Tensor, Tensor]]]:
        """Return per level and image the indices (c,) and probabilities (c,) of the pairs above the threshold."""
        levels = [flatten_level(level, self.num_classes).flatten(1) for level in logits]
        # The threshold on logits selects the few that need a sigmoid. A margin leaves the decision to the sigmoid.
        threshold = self.score_thresh
        bound = math.log(threshold / (1 - threshold)) - 1e-2 if 0 < threshold < 1 else -math.inf
        # All levels together, because the host waits for the number of pairs.
        indices = true_indices([image for level in levels for image in level > bound])
        images = [image for level in levels for image in level]
        scores = [image[index].float().sigmoid() for image, index in zip(images, indices, strict=True)]
        passed = true_indices([each > threshold for each in scores])
        found = [(index[kept], each[kept]) for index, each, kept in zip(indices, scores, passed, strict=True)]
        per_level = len(levels[0])
        return [found[first : first + per_level] for first in range(0, len(found), per_level)]

    def _level_candidates(self, found, anchors, codes, quality=None) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return per image the boxes (c, 4), scores (c,) and labels (c,) of one level, c at most pre_nms_top_n."""
        codes = flatten_level(codes, 4).float()
        if quality is not None:
            quality = flatten_level(quality, 1).squeeze(2).float().sigmoid()
        results = []
        for image, (index, scores) in enumerate(found):
            if quality is not None:
                scores = scores * quality[image][index // self.num_classes]
            if 0 < self.pre_nms_top_n < len(scores):
                scores, best = scores.topk(self.pre_nms_top_n, sorted=False)
                index = index[best]
            anchor = index // self.num_classes
            boxes = self.decode(codes[image][anchor], anchors[anchor])
            if quality is not None and self.score_root:
                scores = scores.sqrt()
            results.append((boxes, scores, index % self.num_classes + 1))
        return results
