"""Assign ground-truth boxes to anchors or proposals.

Shapes: G ground-truth boxes, N anchors or proposals.
"""

from __future__ import annotations

import torch

from maskrcnn_benchmark.structures.boxes import box_iou

# Pairs that match_boxes compares at a time. An image with a thousand objects and 250,000 anchors then needs some
# 300 MB (about ten float32 matrices of this size).
MAX_PAIRS = 2**23


class Matcher:
    """Assign to each prediction the ground truth that it overlaps most, or none.

    Args:
        high_threshold: overlaps of at least this are matches.
        low_threshold: overlaps below this are BELOW_LOW_THRESHOLD (background). Those from here to high_threshold are
            BETWEEN_THRESHOLDS (neither).
        allow_low_quality_matches: also match all predictions that have the best overlap of some ground truth, ties and
            a best overlap of 0 included. Such a prediction is matched with its own best ground truth, which may be
            another one.
        best_matches_kept: instead, match every ground truth whose best overlap is at least low_threshold with all
            predictions that have this overlap, even if they overlap another ground truth more. If several ground
            truths qualify, the last one is matched.

    Raises:
        ValueError: low_threshold is above high_threshold.
    """

    BELOW_LOW_THRESHOLD = -1
    BETWEEN_THRESHOLDS = -2

    def __init__(
        self,
        high_threshold: float,
        low_threshold: float,
        allow_low_quality_matches: bool = False,
        best_matches_kept: bool = False,
    ):
        if low_threshold > high_threshold:
            raise ValueError(
                f"low threshold {low_threshold} of a matcher is above its high threshold {high_threshold} "
                "(BG_IOU_THRESHOLD and FG_IOU_THRESHOLD)"
            )
        self.high_threshold = high_threshold
        self.low_threshold = low_threshold
        self.allow_low_quality_matches = allow_low_quality_matches
        self.best_matches_kept = best_matches_kept

    def __call__(self, match_quality_matrix: torch.Tensor) -> torch.Tensor:
        """Return matches (N,) int64 for overlaps (G, N).

        A match is an index below G (the first of equal overlaps) or one of the two negative constants. Without ground
        truth every match is BELOW_LOW_THRESHOLD.
        """
        if len(match_quality_matrix) == 0:
            return self._no_match(match_quality_matrix.shape[1], match_quality_matrix.device)
        quality, index = match_quality_matrix.max(dim=0)
        best = match_quality_matrix.amax(dim=1) if self._uses_best_overlaps and index.numel() else None
        return self._decide(match_quality_matrix, quality, index, best)

    def match_boxes(self, boxes: torch.Tensor, predictions: torch.Tensor, box_offset: float = 1.0) -> torch.Tensor:
        """Return matches (N,) of predictions (N, 4) by their IoU with boxes (G, 4).

        The memory does not grow with G * N.

        Args:
            box_offset: see Convention.
        """
        if len(boxes) == 0:
            return self._no_match(len(predictions), predictions.device)
        pieces = predictions.split(max(1, MAX_PAIRS // len(boxes)))
        if len(pieces) <= 1:
            return self(box_iou(boxes, predictions, box_offset))
        # The best overlap of each box is known after the last piece, so the overlaps are computed twice.
        best = None
        if self._uses_best_overlaps:
            best = torch.stack([box_iou(boxes, piece, box_offset).amax(dim=1) for piece in pieces]).amax(dim=0)
        matches = []
        for piece in pieces:
            overlaps = box_iou(boxes, piece, box_offset)
            matches.append(self._decide(overlaps, *overlaps.max(dim=0), best))
        return torch.cat(matches)

    def _decide(self, overlaps, quality, index, best):
        """Return matches (n,) from the column maxima quality and index (n,) of overlaps (G, n), and best (G,) of rows.

        best is the maximum over all pieces, or None if best overlaps are not matched.
        """
        matches = torch.where(quality >= self.high_threshold, index, self.BETWEEN_THRESHOLDS)
        matches = torch.where(quality < self.low_threshold, self.BELOW_LOW_THRESHOLD, matches)
        if best is None:
            return matches
        has_best = overlaps == best[:, None]
        if not self.best_matches_kept:
            return torch.where(has_best.any(dim=0), index, matches)
        numbers = torch.arange(len(best), device=best.device)[:, None]
        last = torch.where(has_best & (best >= self.low_threshold)[:, None], numbers, -1).amax(dim=0)
        return torch.where(last >= 0, last, matches)

    @property
    def _uses_best_overlaps(self):
        return self.allow_low_quality_matches or self.best_matches_kept

    def _no_match(self, count, device):
        return torch.full((count,), self.BELOW_LOW_THRESHOLD, dtype=torch.int64, device=device)
