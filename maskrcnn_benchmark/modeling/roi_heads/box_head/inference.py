"""Turn box head outputs into detections.

Shapes: N images, R regions of all images together, R_i of one, K classes with the background, D detections of an image.
"""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, make_box_coder
from maskrcnn_benchmark.modeling.roi_heads.stage import Stage, single_stage
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxes import clip_boxes


class PostProcessor(nn.Module):
    """Threshold scores, decode boxes and apply NMS.

    Args:
        score_thresh: a (region, class) pair is a candidate if its probability exceeds this.
        nms: a box is suppressed by a better one of its class at an IoU above this; 0 or less disables NMS.
        detections_per_img: detections kept per image. 0 or less keeps all.
        box_coder: BoxCoder.
        cls_agnostic_bbox_reg: all classes share one box code.
        bbox_aug_enabled: return all candidates. NMS then runs later, on the candidates of all views.
        box_offset: see Convention.
        best_first: see Convention.detections_best_first.

    Forward takes class logits (R, K) and box codes (R, 4 K), or (R, 8) with cls_agnostic_bbox_reg; N BoxLists of
    regions; and optionally output_sizes.

    Args:
        output_sizes: N (width, height). If given, NMS runs at these sizes instead of the network input's.

    Returns:
        N BoxLists in pixels of the network input with the fields "scores" (D,) and "labels" (D,) int64 in 1..K-1. They
        are sorted by score (best_first), or by class and then by region. NaN scores and non-finite boxes are dropped.
    """

    def __init__(
        self,
        score_thresh=0.05,
        nms=0.5,
        detections_per_img=100,
        box_coder=None,
        cls_agnostic_bbox_reg=False,
        bbox_aug_enabled=False,
        box_offset=1.0,
        best_first=False,
    ):
        super().__init__()
        self.score_thresh = score_thresh
        self.nms = nms
        self.detections_per_img = detections_per_img
        self.box_coder = box_coder or BoxCoder((10.0, 10.0, 5.0, 5.0), box_offset=box_offset)
        self.cls_agnostic_bbox_reg = cls_agnostic_bbox_reg
        self.bbox_aug_enabled = bbox_aug_enabled
        self.box_offset = box_offset
        self.best_first = best_first

    def forward(self, x, boxes: list[BoxList], output_sizes=None) -> list[BoxList]:
        candidates = self.candidates(x, boxes)
        if self.bbox_aug_enabled:
            return candidates
        sizes = output_sizes or [None] * len(boxes)
        return [self.select(*pair) for pair in zip(candidates, sizes, strict=True)]

    def candidates(self, x, boxes: list[BoxList]) -> list[BoxList]:
        """Return all (region, class) pairs above the threshold as N BoxLists, with the fields of forward's."""
        class_logits, box_regression = x
        sizes = [len(regions) for regions in boxes]
        probability = class_logits.float().softmax(dim=1).split(sizes)
        codes = box_regression.float().reshape(len(box_regression), box_regression.shape[1] // 4, 4).split(sizes)
        return [self._candidates_of_image(*parts) for parts in zip(probability, codes, boxes, strict=True)]

    def _candidates_of_image(self, probability, codes, regions):
        label, region = (probability[:, 1:].t() > self.score_thresh).nonzero().unbind(dim=1)
        label = label + 1
        # Decode only what passed the threshold: a few hundred of some 80,000 boxes.
        column = torch.ones_like(label) if self.cls_agnostic_bbox_reg else label
        result = self._decode(codes[region, column], regions.copy_with_fields([])[region])
        result.add_field("scores", probability[region, label])
        result.add_field("labels", label)
        return result[result.bbox.isfinite().all(dim=1).nonzero().squeeze(1)]

    def refine(self, box_regression, boxes: list[BoxList]) -> list[BoxList]:
        """Apply the codes (R, 8) shared by all classes to the regions (N BoxLists), and clip them to their images.

        The result has no fields.
        """
        codes = box_regression.float()[:, -4:].split([len(regions) for regions in boxes])
        return [self._decode(*pair) for pair in zip(codes, boxes, strict=True)]

    def _decode(self, codes, regions):
        """Decode codes (R_i, 4) of R_i regions into a BoxList."""
        decoded = self.box_coder.decode(codes, regions.convert("xyxy").bbox)
        clipped = clip_boxes(decoded, regions.size, self.box_offset)
        return BoxList(clipped, regions.size, box_offset=self.box_offset)

    def select(self, candidates: BoxList, output_size=None) -> BoxList:
        """Return the detections of one image: the best candidates after NMS.

        Args:
            output_size: (width, height) at which NMS runs. Default: the candidates' own.
        """
        scores, labels = candidates.get_field("scores"), candidates.get_field("labels")
        if self.nms > 0:
            boxes = candidates.resize(output_size).bbox if output_size else candidates.bbox
            kept = batched_nms(boxes, scores, labels, self.nms, inclusive=self.box_offset == 1)
        else:
            kept = scores.sort(descending=True, stable=True).indices
        most = self.detections_per_img if self.detections_per_img > 0 else len(kept)
        if self.best_first:
            return candidates[kept[:most]]
        if most < len(kept):
            kept = kept[scores[kept] >= scores[kept[most - 1]]]
        kept = kept.sort().values
        return candidates[kept[labels[kept].argsort(stable=True)]]


def make_roi_box_post_processor(cfg, stage: Stage | None = None) -> PostProcessor:
    stage = stage or single_stage(cfg)
    node = cfg.MODEL.ROI_HEADS
    convention = get_convention(cfg.MODEL.CONVENTION)
    return PostProcessor(
        node.SCORE_THRESH,
        node.NMS,
        node.DETECTIONS_PER_IMG,
        make_box_coder(cfg, stage.box_weights),
        stage.class_agnostic,
        box_offset=convention.box_offset,
        best_first=convention.detections_best_first,
    )
