"""One-stage detectors (FCOS, RetinaNet) with fixed output shapes.

Shapes: N images, L levels, K foreground classes, D detection slots of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.export.anchors import Grid
from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.export.ops import suppress
from maskrcnn_benchmark.export.selection import NO_LIMIT, NOTHING, THRESHOLD, best, clip
from maskrcnn_benchmark.modeling.rpn.dense_detector import DenseDetector
from maskrcnn_benchmark.modeling.rpn.dense_post_process import DensePostProcessor
from maskrcnn_benchmark.modeling.rpn.flatten import flatten_level


class DenseDetections(nn.Module):
    """Exportable form of a DenseDetector in evaluation.

    Forward takes L maps (N, C, H_l, W_l) and sizes (N, 2), (height, width).

    Returns:
        boxes (N, D, 4) float32 in pixels of the network input, scores (N, D), labels (N, D) int64, and a mask (N, D)
        bool of the used slots. The best detection comes first. Unused slots are 0.

    Raises:
        NotExportable: the number of candidates or detections is not limited, or a part has an unknown class.
    """

    def __init__(self, detector: DenseDetector):
        super().__init__()
        select = detector.post_process
        if type(select) is not DensePostProcessor:
            raise NotExportable(f"post-processing by {type(select).__name__} has no exportable form")
        require_limit(select.detections_per_img, "TEST.DETECTIONS_PER_IMG")
        require_limit(select.pre_nms_top_n, "MODEL.FCOS.PRE_NMS_TOP_N (MODEL.RETINANET.PRE_NMS_TOP_N)")
        self.head = detector.head
        self.grid = Grid(detector.anchor_generator)
        self.select = select

    def forward(self, maps: list[Tensor], sizes: Tensor, original_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        select = self.select
        levels = [self._candidates(*level) for level in zip(self.grid(maps), *self.head(maps), strict=True)]
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        if select.clips:
            boxes = clip(boxes, sizes, select.box_offset)
        if select.nms_thresh > 0:
            classes = torch.arange(1, select.num_classes + 1, device=labels.device)
            of_class = torch.where(labels[:, None] == classes[None, :, None], scores[:, None], NOTHING)
            kept = suppress(boxes, of_class, select.nms_thresh, THRESHOLD, select.box_offset, NO_LIMIT)
            scores = torch.where(kept.any(dim=1), scores, NOTHING)
        scores, found, boxes, labels = best(scores, select.detections_per_img, boxes, labels)
        return boxes, scores, labels, found

    def _candidates(self, anchors: Tensor, logits: Tensor, codes: Tensor, quality: Tensor | None = None):
        """Return one level's candidates: boxes (N, c, 4), scores (N, c) and labels (N, c).

        Scores are NOTHING where the class probability does not exceed the threshold.
        """
        select = self.select
        probability = flatten_level(logits, select.num_classes).float().sigmoid()
        passed = probability > select.score_thresh
        if quality is not None:
            probability = probability * flatten_level(quality, 1).float().sigmoid()
        scores = torch.where(passed, probability, NOTHING).flatten(1)
        scores, index = scores.topk(torch.sym_min(select.pre_nms_top_n, scores.shape[1]), dim=1)
        anchor = index // select.num_classes
        codes = flatten_level(codes, 4).float().gather(1, anchor[:, :, None].expand(-1, -1, 4))
        boxes = select.decode(codes.flatten(0, 1), anchors[anchor].flatten(0, 1)).reshape(*scores.shape, 4)
        if quality is not None and select.score_root:
            scores = torch.where(scores > THRESHOLD, scores.clamp(min=0).sqrt(), NOTHING)
        return boxes, scores, index % select.num_classes + 1


def require_limit(count: int, key: str) -> None:
    if count <= 0:
        raise NotExportable(f"{key} is {count}, no limit; outputs of fixed size need one: set it to 1 or more")
