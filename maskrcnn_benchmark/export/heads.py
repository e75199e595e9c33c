"""Mask, mask scoring and keypoint heads on detections, with fixed output shapes.

Shapes: N images, L maps, D detection slots of an image, K keypoints, M pixels per side of a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.export.keypoints import decode_keypoints
from maskrcnn_benchmark.export.regions import Rows
from maskrcnn_benchmark.export.selection import NOTHING, best, clip
from maskrcnn_benchmark.modeling.roi_heads.cascade import CascadeMaskHead
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.keypoint_head import ROIKeypointHead
from maskrcnn_benchmark.modeling.roi_heads.mask_head.mask_head import ROIMaskHead
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.maskiou_head import ROIMaskIoUHead


class DetectionsWithHeads(nn.Module):
    """Detector, and the heads that run on its detections.

    Args:
        detector: DenseDetections, BoxDetections or Proposals.
        roi_heads: CombinedROIHeads or CascadeROIHeads whose poolers are RoiPoolers; None for no heads.
        box_offset: see Convention.
        all_places: run the heads on all D slots, so that no shape depends on data.

    Forward takes L maps, sizes (N, 2), and original sizes (N, 2) or None; sizes are (height, width).

    Returns:
        These tensors in this order, as far as the model has them; `names` lists their names. The best detection comes
        first. Unused slots are 0.
        - boxes (N, D, 4) float32 in pixels of the network input
        - scores (N, D)
        - labels (N, D) int64
        - count (N,): number of used slots
        - masks (N, D, M, M): probabilities
        - mask_scores (N, D): scores times predicted IoUs
        - keypoints (N, D, K, 3): x, y, logit

    Raises:
        NotExportable: a head has an unknown class.
    """

    def __init__(self, detector: nn.Module, roi_heads=None, box_offset: float = 1.0, all_places: bool = False):
        super().__init__()
        heads = {} if roi_heads is None else dict(roi_heads.items())
        self.detector = detector
        self.mask_heads = nn.ModuleList(_mask_heads(heads.get("mask")))
        self.maskiou = _known(heads.get("maskiou"), ROIMaskIoUHead)
        self.keypoint_head = _known(heads.get("keypoint"), ROIKeypointHead)
        self.clips = getattr(roi_heads, "clips_detections", False)
        self.box_offset = box_offset
        self.all_places = all_places
        self.names = ("boxes", "scores", "labels", "count") + ("masks",) * bool(self.mask_heads)
        self.names += ("mask_scores",) * (self.maskiou is not None) + ("keypoints",) * (self.keypoint_head is not None)

    def forward(self, maps: list[Tensor], sizes: Tensor, original_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        boxes, scores, labels, found = self.detector(maps, sizes, original_sizes)
        outputs = []
        if self.mask_heads or self.keypoint_head is not None:
            rows = Rows(found, self.all_places)
            regions = rows.regions(boxes, sizes)
            if self.mask_heads:
                outputs += self._masks(maps, regions, rows.gather(labels), scores, rows)
            if self.keypoint_head is not None:
                heat_maps = self.keypoint_head.predictor(self.keypoint_head.feature_extractor(maps, regions))
                outputs.append(rows.spread(decode_keypoints(heat_maps.float(), regions.rois[:, 1:])))
        if self.clips:
            boxes = clip(boxes, sizes, self.box_offset)
            found = found & (boxes[:, :, 2:] > boxes[:, :, :2]).all(dim=2)
            scores = torch.where(found, scores, NOTHING)
            scores, found, boxes, labels, *outputs = best(scores, scores.shape[1], boxes, labels, *outputs)
        else:
            outputs = [torch.where(found.reshape(*found.shape, *[1] * (each.dim() - 2)), each, 0.0) for each in outputs]
        return boxes, scores, labels, found.sum(dim=1), *outputs

    def _masks(self, maps, regions, labels, scores, rows) -> list[Tensor]:
        """Return masks (N, D, M, M), and mask scores (N, D) if there is a head for them."""
        probabilities = []
        for head in self.mask_heads:
            if self.maskiou is None:
                logits = head.predictor(head.feature_extractor(maps, regions)).float()
            else:
                pooled = head.feature_extractor.pooler(maps, regions)
                logits = head.predictor(head.feature_extractor.convolve(pooled)).float()
            index = labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
            probabilities.append(logits.gather(1, index).sigmoid())
        masks = probabilities[0] if len(probabilities) == 1 else torch.stack(probabilities).mean(dim=0)
        results = [rows.spread(masks.squeeze(1))]
        if self.maskiou is not None:
            ious = self.maskiou.predictor(self.maskiou.feature_extractor(pooled, masks)).float()
            results.append(rows.spread(ious.gather(1, labels[:, None]).squeeze(1)) * scores)
        return results


def _mask_heads(head: nn.Module | None) -> list[nn.Module]:
    heads = list(head) if type(head) is CascadeMaskHead else [head] * (head is not None)
    return [_known(each, ROIMaskHead) for each in heads]


def _known(head: nn.Module | None, kind: type) -> nn.Module | None:
    if head is not None and type(head) is not kind:
        raise NotExportable(f"a head of class {type(head).__name__} has no exportable form; {kind.__name__} has")
    return head
