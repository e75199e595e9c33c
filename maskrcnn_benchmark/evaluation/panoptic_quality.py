"""Panoptic quality (Kirillov et al., CVPR 2019, section 4), with the figures of COCO's panoptic evaluation.

Shapes: H x W pixels of a picture, G segments of its ground truth, F segments found in it, C classes, things and stuff.
"""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.structures.panoptic_map import VOID, PanopticMap

# A found segment is right above this IoU with the ground truth, and does not count as wrong where more than this part
# of it lies on pixels that have no ground truth.
THRESHOLD = 0.5


class PanopticQuality:
    """Adds up pictures.

    Args:
        num_classes: C.

    Attributes, each (C,) by class: iou, the sum over the right segments; right, wrong (found, but not in the ground
    truth), missed (in the ground truth, but not found).
    """

    def __init__(self, num_classes: int):
        self.iou = np.zeros(num_classes)
        self.right, self.wrong, self.missed = np.zeros((3, num_classes), dtype=np.int64)

    def add_maps(self, truth: PanopticMap, found: PanopticMap | None, num_things: int) -> None:
        """Counts one picture, see `add`; classes are those of PanopticMap.classes, and None has no segments."""
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
        """Counts the segments of one picture.

        A found segment is right when a segment of its class that is no crowd overlaps it with an IoU over 0.5, void
        pixels left out of the union; there is at most one. It does not count at all when it is not right and more than
        half of it is void or on a crowd of its class (where a class has several crowds, on the last of them, as in
        COCO's own programme). A crowd is never missed.

        Args:
            truth, found: (H, W) whole numbers, VOID or 1..G and 1..F: the segment of every pixel.
            truth_classes, found_classes: (G,) and (F,), 0..C-1.
            crowd: (G,) bool.

        Raises:
            ValueError: the maps have different sizes.
        """
        if truth.shape != found.shape:
            raise ValueError(f"the ground truth has (height, width) {truth.shape}, what was found {found.shape}")
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
        """PQ, SQ and RQ, each (C,) fractions; not a number for classes that were neither there nor found."""
        trials = self.right + 0.5 * self.wrong + 0.5 * self.missed
        with np.errstate(invalid="ignore"):
            quality = self.iou / trials
            recognition = self.right / trials
        segmentation = np.where(trials > 0, self.iou / np.maximum(self.right, 1), np.nan)
        return {"PQ": quality, "SQ": segmentation, "RQ": recognition}

    def figures(self, is_thing: np.ndarray) -> dict[str, float]:
        """Means over classes: PQ, SQ, RQ, the same of things (PQ_th, ...) and of stuff (PQ_st, ...).

        Args:
            is_thing: (C,) bool.

        NOT_COMPUTED where no class was there or found.
        """
        per_class = self.per_class()
        known = ~np.isnan(per_class["PQ"])
        figures = {}
        for suffix, chosen in (("", known), ("_th", known & is_thing), ("_st", known & ~is_thing)):
            for name, values in per_class.items():
                figures[name + suffix] = float(values[chosen].mean()) if chosen.any() else NOT_COMPUTED
        return figures
