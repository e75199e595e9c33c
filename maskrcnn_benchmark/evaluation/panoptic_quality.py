"""Panoptic quality (Kirillov et al., CVPR 2019, section 4), computed as in COCO's panoptic evaluation.

Shapes: H x W pixels of an image, G ground-truth segments, F predicted segments, C classes, things and stuff.
"""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.structures.panoptic_map import VOID, PanopticMap

# A predicted segment is a true positive above this IoU. It is not a false positive if more than this share of it lies
# on pixels without ground truth.
THRESHOLD = 0.5


class PanopticQuality:
    """Matches of segments, accumulated over images.

    Args:
        num_classes: C.

    Attributes:
        iou: (C,) sum of IoU over the true positives.
        right, wrong, missed: (C,) true positives, false positives and false negatives.
    """

    def __init__(self, num_classes: int):
        self.iou = np.zeros(num_classes)
        self.right, self.wrong, self.missed = np.zeros((3, num_classes), dtype=np.int64)

    def add_maps(self, truth: PanopticMap, found: PanopticMap | None, num_things: int) -> None:
        """Count one image, see `add`. Classes are those of PanopticMap.classes; None means no predicted segments."""
        pixels = truth.unpack()
        crowd = np.array([segment["crowd"] for segment in truth.segments], dtype=bool)
        found = found or PanopticMap(np.full_like(pixels, VOID), [])
        self.add(pixels, truth.classes(num_things), crowd, found.unpack(), found.classes(num_things))

    def add(
        self,
        truth: np.ndarray,
        truth_classes: np.ndarray,
        crowd: np.ndarray,
        found: np.ndarray,
        found_classes: np.ndarray,
    ) -> None:
        """Count the segments of one image.

        A predicted segment is a true positive if its IoU with a ground-truth segment of its class, not a crowd, exceeds
        0.5, with void pixels excluded from the union. There is at most one such segment. Another predicted segment is
        ignored if more than half of it is void or on a crowd of its class. If a class has several crowds, only the last
        one counts, as in COCO's program. A crowd is never a false negative.

        Args:
            truth, found: (H, W) integers, the segment of every pixel: VOID or 1..G, and VOID or 1..F.
            truth_classes, found_classes: (G,) and (F,), 0..C-1.
            crowd: (G,) bool.

        Raises:
            ValueError: the maps have different sizes.
        """
        if truth.shape != found.shape:
            raise ValueError(f"the ground truth has (height, width) {truth.shape}, the prediction {found.shape}")
        count = len(found_classes) + 1
        pairs = truth.astype(np.int64) * count + found
        overlap = np.bincount(pairs.ravel(), minlength=(len(truth_classes) + 1) * count).reshape(-1, count)
        truth_area, found_area = overlap.sum(axis=1)[1:], overlap.sum(axis=0)[1:]
        on_void, overlap = overlap[VOID, 1:], overlap[1:, 1:]

        union = truth_area[:, None] + (found_area - on_void)[None, :] - overlap
        iou = overlap / np.maximum(union, 1)
        hit = (truth_classes[:, None] == found_classes[None, :]) & ~crowd[:, None] & (iou > THRESHOLD)
        rows, columns = np.nonzero(hit)

        last_crowd = dict(zip(truth_classes[crowd].tolist(), np.flatnonzero(crowd).tolist(), strict=True))
        on_nothing = on_void.copy()
        for column, label in enumerate(found_classes.tolist()):
            if label in last_crowd:
                on_nothing[column] += overlap[last_crowd[label], column]
        wrong = on_nothing <= THRESHOLD * found_area
        wrong[columns] = False
        missed = ~crowd
        missed[rows] = False

        classes = len(self.iou)
        self.iou += np.bincount(truth_classes[rows], weights=iou[rows, columns], minlength=classes)
        self.right += np.bincount(truth_classes[rows], minlength=classes)
        self.wrong += np.bincount(found_classes[wrong], minlength=classes)
        self.missed += np.bincount(truth_classes[missed], minlength=classes)

    def per_class(self) -> dict[str, np.ndarray]:
        """Return PQ, SQ and RQ, each (C,) fractions; NaN for classes without ground truth and predictions."""
        trials = self.right + 0.5 * self.wrong + 0.5 * self.missed
        with np.errstate(invalid="ignore"):
            quality = self.iou / trials
            recognition = self.right / trials
        segmentation = np.where(trials > 0, self.iou / np.maximum(self.right, 1), np.nan)
        return {"PQ": quality, "SQ": segmentation, "RQ": recognition}

    def figures(self, is_thing: np.ndarray) -> dict[str, float]:
        """Return means over classes: PQ, SQ, RQ, and the same of things (PQ_th, ...) and of stuff (PQ_st, ...).

        A figure is NOT_COMPUTED if none of its classes has ground truth or predictions.

        Args:
            is_thing: (C,) bool.
        """
        per_class = self.per_class()
        known = ~np.isnan(per_class["PQ"])
        figures = {}
        for suffix, chosen in (("", known), ("_th", known & is_thing), ("_st", known & ~is_thing)):
            for name, values in per_class.items():
                figures[name + suffix] = float(values[chosen].mean()) if chosen.any() else NOT_COMPUTED
        return figures
