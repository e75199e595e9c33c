"""Semantic segmentation: figures from a confusion matrix.

Shapes: H x W pixels of a picture, C classes.
"""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL


class SemanticConfusion:
    """Adds up pictures.

    Args:
        num_classes: C.

    Attributes:
        matrix: (C, C) int64, pixels by (class of the ground truth, class found).
    """

    def __init__(self, num_classes: int):
        self.matrix = np.zeros((num_classes, num_classes), dtype=np.int64)

    def add(self, truth: np.ndarray, found: np.ndarray) -> None:
        """Counts one picture.

        Args:
            truth: (H, W) uint8, 0..C-1, or IGNORE_LABEL for pixels that do not count.
            found: (H, W) uint8, 0..C-1.

        Raises:
            ValueError: the maps differ in size, or one has a class that is not there.
        """
        if truth.shape != found.shape:
            raise ValueError(f"the ground truth has (height, width) {truth.shape}, what was found {found.shape}")
        classes = len(self.matrix)
        counted = truth != IGNORE_LABEL
        truth, found = truth[counted].astype(np.int64), found[counted].astype(np.int64)
        for name, labels in (("ground truth", truth), ("prediction", found)):
            if labels.size and not 0 <= labels.min() <= labels.max() < classes:
                raise ValueError(
                    f"the {name} has class {labels.max()}, but there are {classes} classes, 0 to {classes - 1}"
                )
        self.matrix += np.bincount(truth * classes + found, minlength=classes**2).reshape(classes, classes)

    def class_iou(self) -> np.ndarray:
        """(C,) intersection over union; not a number for classes that the ground truth has not."""
        right = self.matrix.diagonal()
        there, found = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        return np.where(there > 0, right / np.maximum(there + found - right, 1), np.nan)

    def figures(self) -> dict[str, float]:
        """mIoU, fwIoU (weighted by the pixels of the class), mACC (mean recall of the classes) and pACC (pixels that
        are right), as fractions over the classes of the ground truth; NOT_COMPUTED where it has none."""
        there = self.matrix.sum(axis=1)
        known = there > 0
        if not known.any():
            return dict.fromkeys(("mIoU", "fwIoU", "mACC", "pACC"), NOT_COMPUTED)
        iou = self.class_iou()[known]
        right, pixels = self.matrix.diagonal()[known], there[known]
        return {
            "mIoU": float(iou.mean()),
            "fwIoU": float((iou * pixels).sum() / pixels.sum()),
            "mACC": float((right / pixels).mean()),
            "pACC": float(right.sum() / pixels.sum()),
        }
