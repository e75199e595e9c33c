"""One-stage detector on a backbone's maps. FCOS and RetinaNet differ in the parts that they pass to it.

Shapes: N images, L levels, C channels, P_l anchors of level l (boxes, or points).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from maskrcnn_benchmark.structures.bounding_box import BoxList


class DenseDetector(nn.Module):
    """Anchors, head, losses and post-processing, in place of a two-stage model's RPN.

    Args:
        anchor_generator: `grid_anchors` maps L sizes (H_l, W_l) to L tensors (P_l, ...): AnchorGenerator for boxes,
            PointGenerator for points.
        head: maps L feature maps to a tuple of outputs, each a list of L maps.
        loss: (anchors, *outputs, targets) -> dict of scalars.
        post_process: DensePostProcessor.
        train_post_process: DensePostProcessor of the regions that ROI heads train on; None without ROI heads.

    Forward takes an ImageList, L feature maps (N, C, H_l, W_l) and, in training, N BoxLists with the field "labels".

    Returns:
        In training, regions and the dict of losses. The regions are None without train_post_process, otherwise N
        BoxLists of the current detections, through which no gradient flows, and of the ground truth with score 1. In
        evaluation, N BoxLists and {}.

    `candidates` and `select` are the two halves of evaluation. Test-time augmentation joins the candidates of several
    views of an image in between.
    """

    def __init__(
        self,
        anchor_generator: nn.Module,
        head: nn.Module,
        loss: Callable,
        post_process: nn.Module,
        train_post_process: nn.Module | None = None,
    ):
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.loss = loss
        self.post_process = post_process
        self.train_post_process = train_post_process

    def forward(self, images, features, targets=None):
        anchors, outputs = self._outputs(features)
        if self.training:
            losses = self.loss(anchors, *outputs, targets)
            return self._regions(anchors, outputs, images.image_sizes, targets), losses
        with torch.no_grad():
            return self.post_process(anchors, outputs, images.image_sizes), {}

    @torch.no_grad()
    def _regions(self, anchors, outputs, image_sizes, targets) -> list[BoxList] | None:
        if self.train_post_process is None:
            return None
        found = self.train_post_process(anchors, outputs, image_sizes)
        return [_with_ground_truth(*pair) for pair in zip(found, targets, strict=True)]

    @torch.no_grad()
    def candidates(self, images, features) -> list[BoxList]:
        return self.post_process.candidates(*self._outputs(features), images.image_sizes)

    def select(self, candidates: BoxList) -> BoxList:
        return self.post_process.select(candidates)

    def _outputs(self, features):
        return self.anchor_generator.grid_anchors([feature.shape[-2:] for feature in features]), self.head(features)


def _with_ground_truth(found: BoxList, target: BoxList) -> BoxList:
    """Append an image's ground truth to its detections, fields "labels" and "scores"."""
    boxes, labels = target.convert("xyxy").bbox.to(found.bbox.device), target.get_field("labels")
    joined = BoxList(torch.cat((found.bbox, boxes)), found.size, box_offset=found.box_offset)
    joined.add_field("labels", torch.cat((found.get_field("labels"), labels.to(found.bbox.device, torch.int64))))
    scores = found.get_field("scores")
    joined.add_field("scores", torch.cat((scores, scores.new_ones(len(boxes)))))
    return joined
