"""Match detections with objects at an IoU threshold, and find the score threshold with the best F1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_iou


@dataclass(frozen=True)
class ScoreThreshold:
    """Score threshold with the highest F1, the harmonic mean of precision and recall.

    Attributes:
        score: detections with at least this score are kept.
        precision, recall, f1: of the kept detections.
    """

    score: float
    precision: float
    recall: float
    f1: float


def match_detections(
    ground_truth: BoxList, detections: BoxList, iou_threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Match detections, highest score first, with the unmatched object of their label that they overlap most.

    Args:
        ground_truth: G boxes with field labels.
        detections: N boxes of the same image size with fields labels and scores.
        iou_threshold: minimum IoU of a match.

    Returns:
        Scores (N,) float32 in descending order, and (N,) bool, true for matched detections.
    """
    scores, order = detections.get_field("scores").sort(descending=True, stable=True)
    found = np.zeros(len(scores), dtype=bool)
    if len(ground_truth) and len(detections):
        detections = detections[order]
        same_label = detections.get_field("labels")[:, None] == ground_truth.get_field("labels")[None, :]
        iou = torch.where(same_label, boxlist_iou(detections, ground_truth), 0.0).numpy().copy()
        for row in range(len(iou)):
            box = iou[row].argmax()
            if iou[row, box] >= iou_threshold and iou[row, box] > 0:
                found[row] = True
                iou[:, box] = 0
    return scores.numpy(), found


def count_matches(ground_truth: BoxList, detections: BoxList, iou_threshold: float = 0.5) -> int:
    """Count the matched objects, see `match_detections`."""
    if not len(ground_truth) or not len(detections):
        return 0
    return int(match_detections(ground_truth, detections, iou_threshold)[1].sum())


def balancing_score(
    pairs: Iterable[tuple[BoxList, BoxList | None]], iou_threshold: float = 0.5
) -> ScoreThreshold | None:
    """Find the score threshold with the highest F1 over a dataset; None if no detection matches an object.

    Args:
        pairs: ground truth and detections of each image, see `match_detections`; None means no detections.
        iou_threshold: minimum IoU of a match.
    """
    scores, found, objects = [np.zeros(0)], [np.zeros(0, dtype=bool)], 0
    for ground_truth, detections in pairs:
        objects += len(ground_truth)
        if detections is not None:
            of_image = match_detections(ground_truth, detections, iou_threshold)
            scores.append(of_image[0])
            found.append(of_image[1])
    score, hit = np.concatenate(scores), np.concatenate(found)
    if not hit.any():
        return None
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(hit[order])
    last = np.append(score[1:] != score[:-1], True)  # equal scores are kept or dropped together
    count = np.arange(1, len(score) + 1)
    f1 = np.where(last, 2 * hits / (count + objects), 0)
    best = int(f1.argmax())
    return ScoreThreshold(
        float(score[best]), float(hits[best] / count[best]), float(hits[best] / objects), float(f1[best])
    )
