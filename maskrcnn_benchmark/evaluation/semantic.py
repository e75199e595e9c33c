"""Compute metrics of semantic segmentation from a confusion matrix.

Shapes: H x W pixels of an image, K classes.
"""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL

# Pixels counted at a time, to bound the memory for large images.
CHUNK = 2**20


class SemanticConfusion:
    """Confusion matrix of pixels, accumulated over images.

    Args:
        num_classes: K.

    Attributes:
        matrix: (K, K) int64, pixels by (true class, predicted class).
        missed: (K,) int64, pixels of images without a prediction, by true class.
    """

    def __init__(self, num_classes: int):
        self.matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.missed = np.zeros(num_classes, dtype=np.int64)

    def add(self, truth: np.ndarray, found: np.ndarray | None) -> None:
        """Count one image.

        Args:
            truth: (H, W) uint8, 0..K-1, or IGNORE_LABEL for pixels that do not count.
            found: (H, W) uint8, 0..K-1; None for an image without a prediction: all its pixels count as missed.

        Raises:
            ValueError: the maps differ in size, or one has a class outside 0..K-1.
        """
        classes = len(self.matrix)
        if found is not None and truth.shape != found.shape:
            raise ValueError(f"the ground truth has (height, width) {truth.shape}, the prediction {found.shape}")
        truth, found = truth.reshape(-1), None if found is None else found.reshape(-1)
        for start in range(0, len(truth), CHUNK):
            true_classes = truth[start : start + CHUNK]
            counted = true_classes != IGNORE_LABEL
            true_classes = true_classes[counted].astype(np.int64)
            _check_classes("ground truth", true_classes, classes)
            if found is None:
                self.missed += np.bincount(true_classes, minlength=classes)
                continue
            found_classes = found[start : start + CHUNK][counted].astype(np.int64)
            _check_classes("prediction", found_classes, classes)
            pairs = np.bincount(true_classes * classes + found_classes, minlength=classes**2)
            self.matrix += pairs.reshape(classes, classes)

    def pixels(self) -> np.ndarray:
        """Return the labelled pixels of each class, (K,) int64."""
        return self.matrix.sum(axis=1) + self.missed

    def class_iou(self) -> np.ndarray:
        """Return intersection over union of each class, (K,); NaN for classes without ground truth."""
        right, there = self.matrix.diagonal(), self.pixels()
        return np.where(there > 0, right / np.maximum(there + self.matrix.sum(axis=0) - right, 1), np.nan)

    def protocol_iou(self) -> np.ndarray:
        """Return intersection / (union + 1e-10) of each class, (K,), as VoVNet-DeepLabV3 computes it.

        Intersections and unions are summed over all images first. A class without any pixels has 0.
        """
        right = self.matrix.diagonal().astype(np.float64)
        return right / (self.pixels() + self.matrix.sum(axis=0) - right + 1e-10)

    def figures(self) -> dict[str, float]:
        """Return mIoU, fwIoU, mACC and pACC over the classes of the ground truth, as fractions.

        fwIoU weights classes by their pixels, mACC is the mean recall of the classes, and pACC is the share of correct
        pixels. All are NOT_COMPUTED if there is no ground truth.
        """
        there = self.pixels()
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


def _check_classes(name: str, labels: np.ndarray, classes: int) -> None:
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"the {name} has class {labels.max()}, but there are {classes} classes, 0 to {classes - 1}")
