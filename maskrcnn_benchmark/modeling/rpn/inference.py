"""Turn RPN outputs into proposals.

Shapes: N images, L levels, A anchors of a cell, P_l anchors of level l, K candidates of an image.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.modeling.rpn.flatten import flatten_level
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxes import clip_boxes

# More than the anchors of any map, but still a valid index.
NO_LIMIT = 2**31 - 1


class RPNPostProcessor(nn.Module):
    """Select the best anchors of every level, decode their boxes and apply NMS.

    Args:
        pre_nms_top_n: candidates per level and image. 0 or less keeps all, for the other two counts as well.
        post_nms_top_n: proposals per level and image.
        nms_thresh: a candidate is suppressed by a better one of its level at an IoU above this; 0 or less disables NMS.
        min_size: minimum width and height of a candidate, in pixels. Candidates without area are always dropped.
        box_coder: BoxCoder.
        fpn_post_nms_top_n: with several levels, proposals kept of all levels together.
        per_batch: select these from all images of this process's batch together, instead of from each image.
        box_offset: see Convention.
        rank_by_logit: see Convention.rank_proposals_by_logit.

    Forward takes L tensors of anchors (P_l, 4), L maps each of logits (N, A, H_l, W_l) and of box codes
    (N, 4 A, H_l, W_l), and N pairs (height, width).

    Args:
        targets: N BoxLists of ground truth. If given, they are appended to the proposals with objectness 1.

    Returns:
        N BoxLists in pixels of the network input with the field "objectness", a probability. They are sorted best
        first; with per_batch, level by level and best first within each. No gradient flows through them.
    """

    def __init__(
        self,
        pre_nms_top_n: int,
        post_nms_top_n: int,
        nms_thresh: float,
        min_size: float,
        box_coder,
        fpn_post_nms_top_n: int,
        per_batch: bool = False,
        box_offset: float = 1.0,
        rank_by_logit: bool = False,
    ):
        super().__init__()
        self.pre_nms_top_n = _limit(pre_nms_top_n)
        self.post_nms_top_n = _limit(post_nms_top_n)
        self.nms_thresh = nms_thresh
        self.min_size = min_size
        self.box_coder = box_coder
        self.fpn_post_nms_top_n = _limit(fpn_post_nms_top_n)
        self.per_batch = per_batch
        self.box_offset = box_offset
        self.rank_by_logit = rank_by_logit

    @torch.no_grad()
    def forward(self, anchors, logits, codes, image_sizes, targets=None) -> list[BoxList]:
        boxes, scores, levels = self._candidates(anchors, logits, codes)
        sizes = [(int(width), int(height)) for height, width in image_sizes]
        boxes = [clip_boxes(image, size, self.box_offset) for image, size in zip(boxes, sizes, strict=True)]
        if self.per_batch and len(anchors) > 1:
            kept = self._best_of_batch(torch.stack(boxes), scores, levels, len(anchors))
        else:
            top_n = self.fpn_post_nms_top_n if len(anchors) > 1 else self.post_nms_top_n
            kept = [self._best(*image, levels, top_n) for image in zip(boxes, scores, strict=True)]

        proposals = []
        for i, (keep, size) in enumerate(zip(kept, sizes, strict=True)):
            image_boxes, image_scores = boxes[i][keep], scores[i][keep]
            if self.rank_by_logit:
                image_scores = image_scores.sigmoid()
            if targets is not None:
                truth = targets[i].convert("xyxy").bbox.to(image_boxes.device)
                image_boxes = torch.cat((image_boxes, truth))
                image_scores = torch.cat((image_scores, image_scores.new_ones(len(truth))))
            proposal = BoxList(image_boxes, size, box_offset=self.box_offset)
            proposal.add_field("objectness", image_scores)
            proposals.append(proposal)
        return proposals

    def _candidates(self, anchors, logits, codes):
        """Return boxes (N, K, 4), not clipped, scores (N, K) and level indices (K,), best first within each level.

        Scores are logits or probabilities. They are NaN where they or their boxes are not finite.
        """
        best_anchors, best_codes, best_scores, levels = [], [], [], []
        for number, (level_anchors, level_logits, level_codes) in enumerate(zip(anchors, logits, codes, strict=True)):
            scores = flatten_level(level_logits, 1).squeeze(2).float()
            if not self.rank_by_logit:
                scores = scores.sigmoid()
            count = min(self.pre_nms_top_n, scores.shape[1])
            scores, index = scores.topk(count, dim=1)
            best_scores.append(scores)
            best_anchors.append(level_anchors[index])
            best_codes.append(flatten_level(level_codes, 4).float().gather(1, index[:, :, None].expand(-1, -1, 4)))
            levels.append(torch.full((count,), number, device=index.device))
        boxes = self.box_coder.decode(
            torch.cat(best_codes, dim=1).flatten(0, 1), torch.cat(best_anchors, dim=1).flatten(0, 1)
        )
        scores = torch.cat(best_scores, dim=1)
        boxes = boxes.view(*scores.shape, 4)
        finite = boxes.isfinite().all(dim=2) & scores.isfinite()
        return boxes, scores.masked_fill(~finite, torch.nan), torch.cat(levels)

    def _best(self, boxes, scores, groups, top_n):
        """Return the indices, best first, of top_n survivors of NMS among boxes (n, 4), applied within each group."""
        sides = boxes[:, 2:] - boxes[:, :2] + self.box_offset
        usable = ((sides >= self.min_size) & (sides > 0)).all(dim=1)
        scores = scores.masked_fill(~usable, torch.nan)  # NMS skips NaN
        cut_groups = self.post_nms_top_n < min(self.pre_nms_top_n, top_n)
        threshold = self.nms_thresh if self.nms_thresh > 0 else math.inf
        inclusive, most = self.box_offset == 1, -1 if cut_groups else top_n
        keep = batched_nms(boxes, scores, groups, threshold, inclusive=inclusive, max_keep=most)
        if cut_groups:
            keep = keep[_rank_in_group(groups[keep]) < self.post_nms_top_n]
        return keep[:top_n]

    def _best_of_batch(self, boxes, scores, levels, num_levels):
        """Return per image the indices of its candidates that are among the batch's best, in candidate order."""
        num_images, num_candidates = scores.shape
        images = torch.arange(num_images, device=levels.device)
        groups = (images[:, None] * num_levels + levels).flatten()
        keep = self._best(boxes.flatten(0, 1), scores.flatten(), groups, self.fpn_post_nms_top_n).sort().values
        counts = (keep // num_candidates == images[:, None]).sum(dim=1)
        return (keep % num_candidates).split(counts.tolist())


def _limit(count: int) -> int:
    return count if count > 0 else NO_LIMIT


def _rank_in_group(groups: torch.Tensor) -> torch.Tensor:
    """Count for each entry of groups (n,) the earlier entries that equal it."""
    order = groups.argsort(stable=True)
    ordered = groups[order]
    ranks = torch.arange(len(groups), device=groups.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(ranks).index_copy(0, order, ranks)


def make_rpn_postprocessor(cfg, rpn_box_coder, is_train: bool) -> RPNPostProcessor:
    rpn = cfg.MODEL.RPN
    convention = get_convention(cfg.MODEL.CONVENTION)
    return RPNPostProcessor(
        pre_nms_top_n=rpn.PRE_NMS_TOP_N_TRAIN if is_train else rpn.PRE_NMS_TOP_N_TEST,
        post_nms_top_n=rpn.POST_NMS_TOP_N_TRAIN if is_train else rpn.POST_NMS_TOP_N_TEST,
        nms_thresh=rpn.NMS_THRESH,
        min_size=rpn.MIN_SIZE,
        box_coder=rpn_box_coder,
        fpn_post_nms_top_n=rpn.FPN_POST_NMS_TOP_N_TRAIN if is_train else rpn.FPN_POST_NMS_TOP_N_TEST,
        per_batch=is_train and rpn.FPN_POST_NMS_PER_BATCH,
        box_offset=convention.box_offset,
        rank_by_logit=convention.rank_proposals_by_logit,
    )
