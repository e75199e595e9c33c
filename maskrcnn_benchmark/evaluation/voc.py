"""Pascal VOC evaluation of detections (Everingham et al., IJCV 2010): average precision at IoU 0.5.

Shapes: D detections and G objects of an image, K foreground classes.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED, Results
from maskrcnn_benchmark.evaluation.options import EvaluationOptions
from maskrcnn_benchmark.evaluation.predictions import Predictions, numbered
from maskrcnn_benchmark.structures.bounding_box import TO_REMOVE, BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_iou
from maskrcnn_benchmark.utils.atomic_write import atomic_write

logger = logging.getLogger("maskrcnn_benchmark.inference")

IOU_THRESHOLD = 0.5

# Outcome of a detection. Detections of difficult objects are ignored: neither true nor false positives.
FALSE, TRUE, IGNORED = 0, 1, -1


class VOCResults(dict, Results):
    """Figures of a VOC evaluation, as fractions.

    As a dict it has maskrcnn-benchmark's keys "ap", (K + 1,) 11-point average precisions by label (NaN for the
    background and for classes without objects), and "map", their mean. "ap_area" and "map_area" are the same for the
    area under the curve.

    Attributes:
        results: {"voc": {"mAP": ..., "mAP_area": ...}}; -1 if not computed.
    """

    def __init__(self, ap: np.ndarray, ap_area: np.ndarray):
        super().__init__(ap=ap, map=_mean(ap), ap_area=ap_area, map_area=_mean(ap_area))
        means = {"mAP": self["map"], "mAP_area": self["map_area"]}
        self.results = {"voc": {name: NOT_COMPUTED if math.isnan(mean) else mean for name, mean in means.items()}}

    def text(self, class_names) -> str:
        """Return the content of result.txt: the mean, then one line per class, of 11-point average precisions."""
        lines = [f"mAP: {self['map']:.4f}"]
        lines += [f"{name:<16}: {value:.4f}" for name, value in zip(class_names, self["ap"][1:], strict=True)]
        return "".join(f"{line}\n" for line in lines)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def voc_evaluation(
    dataset,
    predictions: Predictions,
    output_folder: str | None,
    box_only: bool = False,
    iou_types: Sequence[str] = ("bbox",),
    options: EvaluationOptions | None = None,
) -> VOCResults:
    """Evaluate detections against the dataset's ground truth.

    Args:
        dataset: has class_names, get_img_info(index), and get_groundtruth(index) with the field labels and optionally
            difficult.
        predictions: by dataset index, in the size of the network input. An image without a prediction counts as an
            image without detections.
        output_folder: folder for result.txt and voc_results.json; None or "" writes nothing.
        box_only, iou_types, options: ignored; VOC evaluates only detections.

    Returns:
        Results of the task "voc" with the metrics "mAP" (11 points, VOC 2007) and "mAP_area" (VOC 2010 and later).

    Raises:
        ValueError: predictions have no scores or labels, or a label that the dataset does not have.
    """
    logger.info("performing voc evaluation, ignored iou_types.")
    if box_only:
        logger.warning("voc evaluation doesn't support box_only, ignored.")
    found = dict(numbered(predictions))
    missing = len(dataset) - len(found)
    if missing:
        logger.warning(f"{missing} of {len(dataset)} images have no predictions; their objects count as missed")

    num_classes = len(dataset.class_names)
    objects = np.zeros(num_classes + 1, dtype=np.int64)
    difficult = np.zeros(num_classes + 1, dtype=np.int64)
    scores, outcomes = defaultdict(list), defaultdict(list)
    for index in range(len(dataset)):
        truth = dataset.get_groundtruth(index)
        hard = _difficult(truth)
        labels = truth.get_field("labels").numpy()
        objects += np.bincount(labels[~hard], minlength=num_classes + 1)
        difficult += np.bincount(labels[hard], minlength=num_classes + 1)
        if index in found:
            detections = _in_original_size(found[index], dataset, index)
            for label, score, outcome in match_image(detections, truth):
                scores[label].append(score)
                outcomes[label].append(outcome)

    ap, ap_area = np.full((2, num_classes + 1), np.nan)
    for label in range(1, num_classes + 1):
        if objects[label]:
            curve = precision_recall(np.array(scores[label]), np.array(outcomes[label]), objects[label])
            ap[label], ap_area[label] = average_precision(*curve, eleven_points=True), average_precision(*curve)
    results = VOCResults(ap, ap_area)
    logger.info(results.text(dataset.class_names))
    logger.info(f"mAP with the area under the curve: {results['map_area']:.4f}")
    if output_folder:
        _write(output_folder, results, dataset, objects, difficult)
    return results


def _difficult(truth: BoxList) -> np.ndarray:
    """Return (G,) bool, true for difficult objects; all false if the dataset has no such field."""
    if not truth.has_field("difficult"):
        return np.zeros(len(truth), dtype=bool)
    return truth.get_field("difficult").numpy().astype(bool)


def _in_original_size(prediction: BoxList, dataset, index: int) -> BoxList:
    lacking = [name for name in ("labels", "scores") if not prediction.has_field(name)]
    if lacking:
        raise ValueError(
            f"VOC evaluation requires detections with labels and scores; those of image {dataset.image_id(index)} "
            f"have only the fields {prediction.fields()}"
        )
    info = dataset.get_img_info(index)
    boxlist = prediction.copy_with_fields(["labels", "scores"]).resize((info["width"], info["height"]))
    boxlist = boxlist.with_offset(TO_REMOVE)  # VOC uses inclusive boxes
    labels = boxlist.get_field("labels")
    strange = labels[(labels < 1) | (labels > len(dataset.class_names))].unique().tolist()
    if strange:
        raise ValueError(
            f"image {dataset.image_id(index)} has detections of label {strange}, but the dataset has the labels 1 "
            f"to {len(dataset.class_names)}: the model was trained for another dataset, or NUM_CLASSES is wrong"
        )
    return boxlist[torch.isfinite(boxlist.bbox).all(dim=1) & torch.isfinite(boxlist.get_field("scores"))]


def match_image(detections: BoxList, truth: BoxList) -> list[tuple[int, float, int]]:
    """Match the detections of an image with its objects.

    Each detection, best first, is compared with the object of its label that it overlaps most (inclusive boxes). If
    their IoU is at least 0.5, it is IGNORED if the object is difficult, and TRUE if it is the first one on that object.
    All others are FALSE.

    Args:
        detections: D boxes in pixels of the image, with fields labels and scores.
        truth: G boxes with fields labels and optionally difficult.

    Returns:
        (label, score, outcome) of every detection, best first.
    """
    order = detections.get_field("scores").argsort(descending=True, stable=True)
    labels = detections.get_field("labels")[order].tolist()
    scores = detections.get_field("scores")[order].tolist()
    true_labels = truth.get_field("labels")
    hard = _difficult(truth)
    iou = boxlist_iou(detections[order], truth)
    iou = torch.where(detections.get_field("labels")[order][:, None] == true_labels[None, :], iou, -1.0)
    taken = np.zeros(len(truth), dtype=bool)
    matched = []
    for row, (label, score) in enumerate(zip(labels, scores, strict=True)):
        outcome = FALSE
        if len(truth):
            overlap, place = iou[row].max(dim=0)
            if overlap >= IOU_THRESHOLD:
                if hard[place]:
                    outcome = IGNORED
                elif not taken[place]:
                    outcome = TRUE
                taken[place] = True
        matched.append((label, score, outcome))
    return matched


def precision_recall(scores: np.ndarray, outcomes: np.ndarray, num_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall, (D,) each, of a class's k best detections for k = 1..D.

    Args:
        scores, outcomes: (D,) over all images, see `match_image`; ignored detections do not count.
        num_objects: number of objects of the class, without difficult ones; at least 1.
    """
    outcomes = outcomes[np.argsort(-scores, kind="stable")]
    right, wrong = np.cumsum(outcomes == TRUE), np.cumsum(outcomes == FALSE)
    return right / np.maximum(right + wrong, 1), right / num_objects


def average_precision(precision: np.ndarray, recall: np.ndarray, eleven_points: bool = False) -> float:
    """Average the best precision at or beyond each recall, over 11 recalls (VOC 2007) or over all (VOC 2010)."""
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    if eleven_points:
        places = np.searchsorted(recall, np.arange(0.0, 1.1, 0.1), side="left")
        return float(np.append(best_beyond, 0.0)[places].mean())
    steps = np.diff(np.concatenate(([0.0], recall)))
    return float((steps * best_beyond).sum())


def _write(output_folder: str, results: VOCResults, dataset, objects: np.ndarray, difficult: np.ndarray) -> None:
    def known(value: float) -> float | None:
        return None if math.isnan(value) else float(value)

    record = {
        "images": len(dataset),
        "results": results.results,
        "per_class": [
            {
                "name": name,
                "boxes": int(objects[label]),
                "difficult": int(difficult[label]),
                "AP": known(results["ap"][label]),
                "AP_area": known(results["ap_area"][label]),
            }
            for label, name in enumerate(dataset.class_names, start=1)
        ],
    }
    for name, content in (
        ("result.txt", results.text(dataset.class_names)),
        ("voc_results.json", json.dumps(record, indent=2)),
    ):
        with atomic_write(os.path.join(output_folder, name)) as file:
            file.write(content.encode())
