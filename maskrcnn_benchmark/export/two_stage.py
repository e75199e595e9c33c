"""Region proposals and box heads (Faster and Cascade R-CNN) with fixed output shapes.

Shapes: N images, L maps, R proposal slots and D detection slots of an image, K classes including the background.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.export.anchors import Grid
from maskrcnn_benchmark.export.dense import require_limit
from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.export.ops import suppress
from maskrcnn_benchmark.export.regions import Rows
from maskrcnn_benchmark.export.selection import NO_LIMIT, NOTHING, THRESHOLD, best, clip
from maskrcnn_benchmark.modeling.roi_heads.box_head.box_head import ROIBoxHead
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import PostProcessor
from maskrcnn_benchmark.modeling.roi_heads.cascade import CascadeBoxHead
from maskrcnn_benchmark.modeling.rpn.flatten import flatten_level
from maskrcnn_benchmark.modeling.rpn.inference import RPNPostProcessor
from maskrcnn_benchmark.modeling.rpn.rpn import RPNModule


class Proposals(nn.Module):
    """Exportable form of an RPNModule in evaluation.

    Forward takes L maps and sizes (N, 2), (height, width).

    Returns:
        As DenseDetections: boxes (N, R, 4), probabilities (N, R), labels (N, R), 1 for every proposal, and a mask
        (N, R) bool of the used slots. The best proposal comes first. Unused slots are 0.
    """

    def __init__(self, rpn: RPNModule):
        super().__init__()
        select = rpn.box_selector_test
        if type(select) is not RPNPostProcessor or select.per_batch:
            raise NotExportable(f"proposals by {type(select).__name__} have no exportable form")
        self.several = len(rpn.anchor_generator.strides) > 1
        self.count = select.fpn_post_nms_top_n if self.several else select.post_nms_top_n
        for count, key in ((self.count, "POST_NMS_TOP_N_TEST"), (select.pre_nms_top_n, "PRE_NMS_TOP_N_TEST")):
            require_limit(0 if count >= NO_LIMIT else count, f"MODEL.RPN.{'FPN_' * self.several}{key}")
        self.head = rpn.head
        self.grid = Grid(rpn.anchor_generator)
        self.select = select

    def forward(self, maps: list[Tensor], sizes: Tensor, original_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        logits, codes = self.head(maps)
        levels = [self._level(*level, sizes) for level in zip(self.grid(maps), logits, codes, strict=True)]
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        scores, used, boxes = best(scores, self.count, boxes)
        if self.select.rank_by_logit:
            scores = torch.where(used, scores.sigmoid(), 0.0)
        return boxes, scores, used.long(), used

    def _level(self, anchors: Tensor, logits: Tensor, codes: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Return one level's candidates (N, c, 4) and scores (N, c), NOTHING for dropped ones."""
        select = self.select
        scores = flatten_level(logits, 1).squeeze(2).float()
        if not select.rank_by_logit:
            scores = scores.sigmoid()
        scores, index = scores.topk(torch.sym_min(select.pre_nms_top_n, scores.shape[1]), dim=1)
        codes = flatten_level(codes, 4).float().gather(1, index[:, :, None].expand(-1, -1, 4))
        boxes = select.box_coder.decode(codes.flatten(0, 1), anchors[index].flatten(0, 1)).reshape(*scores.shape, 4)
        boxes = clip(boxes, sizes, select.box_offset)
        sides = boxes[:, :, 2:] - boxes[:, :, :2] + select.box_offset
        scores = torch.where(((sides >= select.min_size) & (sides > 0)).all(dim=2), scores, NOTHING)
        most = min(select.post_nms_top_n, self.count)
        if select.nms_thresh > 0 or most < select.pre_nms_top_n:
            threshold = select.nms_thresh if select.nms_thresh > 0 else 1.0
            kept = suppress(boxes, scores[:, None], threshold, THRESHOLD, select.box_offset, most)
            scores = torch.where(kept.squeeze(1), scores, NOTHING)
        return boxes, scores


class BoxDetections(nn.Module):
    """First stage and box head, or a cascade of box heads.

    Args:
        proposals: Proposals, or DenseDetections of an FCOS that replaces the RPN.
        box: ROIBoxHead or CascadeBoxHead whose poolers are RoiPoolers.
        all_places: compute all R proposals, so that no shape but NMS's depends on data.

    Forward takes L maps, sizes (N, 2), and original sizes (N, 2) if NMS runs at these; sizes are (height, width).

    Returns:
        boxes (N, D, 4) float32 in pixels of the network input, scores (N, D), labels (N, D) int64, and a mask (N, D)
        bool of the used slots. The best detection comes first. Unused slots are 0.
    """

    def __init__(self, proposals: nn.Module, box: nn.Module, all_places: bool = False):
        super().__init__()
        known = type(box) is CascadeBoxHead or type(box) is ROIBoxHead
        heads = list(box) if type(box) is CascadeBoxHead else [box]
        if not known or any(type(head.post_processor) is not PostProcessor for head in heads):
            raise NotExportable(f"a box head of {type(box).__name__} has no exportable form")
        self.proposals = proposals
        self.heads = nn.ModuleList(heads)
        self.select = heads[-1].post_processor
        require_limit(self.select.detections_per_img, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG")
        self.all_places = all_places

    def forward(self, maps: list[Tensor], sizes: Tensor, original_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        regions, _, _, used = self.proposals(maps, sizes)
        logits, rows = [], Rows(used, self.all_places)
        for number, head in enumerate(self.heads):
            of_regions = head.predictor(head.feature_extractor(maps, rows.regions(regions, sizes)))
            class_logits, codes = (rows.spread(values.float()) for values in of_regions)
            logits.append(class_logits)
            if number + 1 < len(self.heads):
                regions = self._decoded(head.post_processor, codes[:, :, -4:], regions, sizes)
        probability = logits[0] if len(logits) == 1 else torch.stack(logits).mean(dim=0)
        probability = probability.softmax(dim=2)
        select = self.select
        classes = probability.shape[2] - 1
        codes = codes[:, :, -4:] if select.cls_agnostic_bbox_reg else codes[:, :, 4:]
        boxes = self._decoded(select, codes, regions, sizes)
        boxes = boxes.reshape(*boxes.shape[:2], -1, 4).transpose(1, 2)  # (N, K - 1 or 1, R, 4)
        scores = torch.where(used[:, None], probability[:, :, 1:].transpose(1, 2), NOTHING)
        scores = torch.where((scores > select.score_thresh) & boxes.isfinite().all(dim=3), scores, NOTHING)
        if select.nms > 0:
            scores = torch.where(self._kept(boxes, scores, sizes, original_sizes), scores, NOTHING)
        labels = torch.arange(1, classes + 1, device=scores.device)[None, :, None].expand(scores.shape)
        boxes = boxes.expand(-1, classes, -1, -1).flatten(1, 2)
        scores, found, boxes, labels = best(scores.flatten(1), select.detections_per_img, boxes, labels.flatten(1))
        return boxes, scores, labels, found

    def _kept(self, boxes, scores, sizes, original_sizes):
        """Return which (class, region) pairs (N, K - 1, R) survive NMS."""
        if original_sizes is not None:
            ratio = (original_sizes.float() / sizes.float()).flip(1).repeat(1, 2)
            boxes = boxes * ratio[:, None, None]
        shape = scores.shape
        if boxes.shape[1] == 1:
            boxes = boxes.squeeze(1)
        else:
            boxes, scores = boxes.flatten(0, 1), scores.flatten(0, 1)[:, None]
        kept = suppress(boxes, scores, self.select.nms, THRESHOLD, self.select.box_offset, NO_LIMIT)
        return kept.reshape(shape)

    def _decoded(self, select, codes, regions, sizes):
        """Apply codes (N, R, 4 k) to regions (N, R, 4) and clip."""
        decoded = select.box_coder.decode(codes.flatten(0, 1), regions.flatten(0, 1)).reshape(codes.shape[0], -1, 4)
        return clip(decoded, sizes, select.box_offset).reshape(codes.shape)
