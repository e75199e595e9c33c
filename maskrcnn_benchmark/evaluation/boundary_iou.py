"""Boundary IoU (Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021).

    Boundary IoU(G, P) = |(G_d & G) & (P_d & P)| / |(G_d & G) | (P_d & P)|

where M_d are the pixels at most d pixels away from the contour of the mask M. The border of the image is a contour.
Shapes: H x W pixels of an image, K classes.
"""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL

# d relative to the image's diagonal, as in the paper.
DISTANCE = 0.02


class BoundaryIoU:
    """Intersections and unions of boundaries per class, accumulated over images.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int):
        self.intersection = np.zeros(num_classes, dtype=np.int64)
        self.union = np.zeros(num_classes, dtype=np.int64)
        self.truth = np.zeros(num_classes, dtype=np.int64)

    def add(self, truth: np.ndarray, found: np.ndarray | None) -> None:
        """Count one image.

        Args:
            truth: (H, W) uint8, 0..K-1 or IGNORE_LABEL, which belongs to no class in either map.
            found: (H, W) uint8, 0..K-1; None for an image without a prediction.
        """
        ignored = truth == IGNORE_LABEL
        if found is None:
            found = np.full_like(truth, IGNORE_LABEL)
        present = np.union1d(truth[~ignored], found[~ignored])
        for label in present[present < len(self.union)]:
            true_band = boundary(truth == label)
            found_band = boundary((found == label) & ~ignored)
            self.intersection[label] += np.count_nonzero(true_band & found_band)
            self.union[label] += np.count_nonzero(true_band | found_band)
            self.truth[label] += np.count_nonzero(true_band)

    def class_iou(self) -> np.ndarray:
        """Return the boundary IoU of each class, (K,); NaN for classes without ground truth."""
        return np.where(self.truth > 0, self.intersection / np.maximum(self.union, 1), np.nan)


def boundary(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask (H, W) bool that are at most d pixels inside its contour, in chessboard distance."""
    import cv2  # takes a second to import, and only this function needs it

    distance = max(round(DISTANCE * float(np.hypot(*mask.shape))), 1)
    kernel = np.ones((2 * distance + 1, 2 * distance + 1), dtype=np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)
