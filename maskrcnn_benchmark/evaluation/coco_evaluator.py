"""Run a COCO evaluator for average precision.

The evaluator is faster-coco-eval (C++), or pycocotools on platforms without it. Their figures are equal;
benchmarks/evaluation.py times them.

Shapes of `eval["precision"]`: T IoU thresholds (0.50:0.05:0.95), R recall levels (101), K categories (ascending ids),
A area ranges (all, small, medium, large), M detection limits (1, 10, 100).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.utils.garbage_collection import without_garbage_collection

logger = logging.getLogger("maskrcnn_benchmark.inference")

EVALUATORS = ("faster_coco_eval", "pycocotools")


def available_evaluator() -> str:
    """Return the first of EVALUATORS that is installed.

    Raises:
        ImportError: none is installed.
    """
    for name in EVALUATORS:
        if importlib.util.find_spec(name) is not None:
            return name
    raise ImportError("COCO evaluation requires pycocotools or faster-coco-eval; run: pip install faster-coco-eval")


def run_evaluator(
    ground_truth: dict,
    detections: list[dict],
    iou_type: str = "bbox",
    evaluator: str | None = None,
    sigmas: Sequence[float] | None = None,
    max_detections: int | None = None,
):
    """Evaluate COCO results, and print COCO's summary lines to stdout.

    Args:
        ground_truth: result of `ground_truth_of`; not modified. Image ids may be strings.
        detections: {"image_id", "category_id", "score"} and "bbox": [x, y, width, height], "segmentation": RLE or
            "keypoints": 3 numbers per keypoint; not modified. May be empty.
        iou_type: "bbox", "segm" or "keypoints".
        evaluator: one of EVALUATORS; None uses the first that is installed.
        sigmas: standard deviation of each keypoint relative to the object's size; None uses COCO's 17.
        max_detections: largest number of detections of a class in an image; None is COCO's 100. With a number there is
            no summary: nothing is printed, and there are no `stats`.

    Returns:
        The evaluator's object, with `params.iouType`, `params.catIds`, `stats` (12 figures, 10 for keypoints) and
        `eval["precision"]` (T, R, K, A, M).

    Raises:
        ValueError: the ground truth does not have the images of some detections.
    """
    evaluator = evaluator or available_evaluator()
    with without_garbage_collection():  # a third of the time for half a million detections
        coco_eval, summary = _run(ground_truth, detections, iou_type, evaluator, sigmas, max_detections)
    print(summary, end="", flush=True)
    return coco_eval


def _run(ground_truth: dict, detections: list[dict], iou_type: str, evaluator: str, sigmas, max_detections):
    """Return the evaluator's object and its summary lines."""
    # evaluators modify their inputs: they convert masks to RLE, and add areas and ids to detections
    ground_truth = {**ground_truth, "annotations": [dict(annotation) for annotation in ground_truth["annotations"]]}
    detections = [dict(detection) for detection in detections]
    unknown = {entry["image_id"] for entry in detections} - {image["id"] for image in ground_truth["images"]}
    if unknown:
        some = ", ".join(repr(image_id) for image_id in sorted(unknown, key=str)[:3])
        raise ValueError(f"{len(unknown)} images with detections are not in the ground truth: {some}")
    _number_images(ground_truth, detections)
    run = _run_faster_coco_eval if evaluator == "faster_coco_eval" else _run_pycocotools
    return run(ground_truth, detections, iou_type, sigmas, max_detections)


def _number_images(ground_truth: dict, detections: list[dict]) -> None:
    """Replace image ids by numbers, in place, if one is a string or too large for the evaluators."""
    images = ground_truth["images"]
    if all(isinstance(image["id"], int) and 0 <= image["id"] < 2**31 for image in images):
        return
    numbers = {image["id"]: number for number, image in enumerate(images, start=1)}
    ground_truth["images"] = [{**image, "id": numbers[image["id"]]} for image in images]
    # evaluators ignore annotations of images that are not listed
    for entry in (*ground_truth["annotations"], *detections):
        entry["image_id"] = numbers.get(entry["image_id"], 0)


def _run_pycocotools(ground_truth, detections, iou_type, sigmas, max_detections):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # progress messages
        coco_gt = COCO()
        coco_gt.dataset = ground_truth
        coco_gt.createIndex()
        coco_dt = coco_gt.loadRes(detections) if detections else COCO()
        coco_eval = COCOeval(coco_gt, coco_dt, iou_type)
        if sigmas is not None:
            coco_eval.params.kpt_oks_sigmas = np.array(sigmas, dtype=np.float64)
        if max_detections is not None:
            coco_eval.params.maxDets = [1, 10, max_detections]
        coco_eval.evaluate()
        coco_eval.accumulate()
    if max_detections is not None:
        return coco_eval, ""
    with contextlib.redirect_stdout(io.StringIO()) as summary:
        coco_eval.summarize()
    return coco_eval, summary.getvalue()


def _run_faster_coco_eval(ground_truth, detections, iou_type, sigmas, max_detections):
    from faster_coco_eval import COCO, COCOeval_faster

    lines: list[str] = []
    coco_gt = COCO(ground_truth)
    if not detections:
        coco_dt = COCO()
    elif iou_type == "segm" and "bbox" not in detections[0]:
        _measure_masks(detections)  # faster than loadRes, which takes two fifths of the evaluation for it
        coco_dt = COCO({**ground_truth, "annotations": detections})
    else:
        coco_dt = coco_gt.loadRes(detections)
    coco_eval = COCOeval_faster(coco_gt, coco_dt, iou_type, print_function=lines.append)
    if sigmas is not None:
        coco_eval.params.kpt_oks_sigmas = np.array(sigmas, dtype=np.float64)
    if max_detections is not None:
        coco_eval.params.maxDets = [1, 10, max_detections]
    coco_eval.rle_iou_max_workers = 1  # passing a few masks to a thread takes longer than comparing them
    coco_eval.evaluate()
    coco_eval.accumulate()
    if max_detections is not None:
        return coco_eval, ""
    lines.clear()
    coco_eval.summarize()
    # it adds recall at IoU 0.5 and 0.75, which scripts for pycocotools' lines do not expect
    return coco_eval, "".join(f"{line}\n" for line in lines[: len(coco_eval.stats)])


def _measure_masks(detections: list[dict]) -> None:
    """Add area, bbox, id and iscrowd to detections with a "segmentation" (RLE), as loadRes does."""
    from pycocotools import mask as coco_mask

    for start in range(0, len(detections), 100):  # pycocotools 2.0.11 raises OverflowError for more than 255
        some = detections[start : start + 100]
        masks = [detection["segmentation"] for detection in some]
        measures = zip(coco_mask.area(masks).tolist(), coco_mask.toBbox(masks).tolist(), strict=True)
        for number, (detection, (area, box)) in enumerate(zip(some, measures, strict=True), start=start + 1):
            detection.update(area=area, bbox=box, id=number, iscrowd=0)


@dataclass(frozen=True)
class ClassFigures:
    """Average precision of one class, -1 without ground truth. `boxes` is the number of objects, without crowd."""

    name: str
    category_id: int
    boxes: int
    AP: float
    AP50: float


def per_class_figures(coco_eval, ground_truth: dict, class_names: dict[int, str]) -> list[ClassFigures]:
    """Compute AP (mean over IoU 0.50:0.95) and AP50 of every class, at the largest detection limit and for all areas.

    Args:
        coco_eval: result of `run_evaluator`.
        ground_truth: its ground truth.
        class_names: names by category id; the id is used for missing ones.
    """
    precision = coco_eval.eval["precision"][..., 0, -1]  # (T, R, K)
    evaluated = {image["id"] for image in ground_truth["images"]}  # not params.imgIds, which may be other numbers
    boxes: dict[int, int] = {}
    for annotation in ground_truth["annotations"]:
        if not annotation["iscrowd"] and annotation["image_id"] in evaluated:
            boxes[annotation["category_id"]] = boxes.get(annotation["category_id"], 0) + 1
    return [
        ClassFigures(
            name=class_names.get(category_id, str(category_id)),
            category_id=int(category_id),
            boxes=boxes.get(category_id, 0),
            AP=_mean_precision(precision[:, :, k]),
            AP50=_mean_precision(precision[0, :, k]),
        )
        for k, category_id in enumerate(coco_eval.params.catIds)
    ]


def _mean_precision(precision: np.ndarray) -> float:
    computed = precision[precision > NOT_COMPUTED]
    return float(computed.mean()) if computed.size else NOT_COMPUTED


def compute_thresholds_for_classes(coco_eval) -> tuple[list[float], list[float]]:
    """Find the score threshold of each class with the best F-measure at IoU 0.5, and print both as FCOS does.

    Args:
        coco_eval: result of `run_evaluator`, or an accumulated COCOeval.

    Returns:
        Scores and F-measures, in the order of `coco_eval.params.catIds`. Both are -1 for a class without ground truth,
        and 0 for a class without detections.
    """
    precision = coco_eval.eval["precision"][0, :, :, 0, -1]  # (R, K) at the first IoU threshold
    scores = coco_eval.eval["scores"][0, :, :, 0, -1]
    recall = np.asarray(coco_eval.params.recThrs)[:, None]
    measures = 2 * precision * recall / np.maximum(precision + recall, 1e-6)
    best = measures.argmax(axis=0)[None]
    computed = precision.max(axis=0) > NOT_COMPUTED
    measures, thresholds = (
        np.where(computed, np.take_along_axis(values, best, axis=0)[0], NOT_COMPUTED).tolist()
        for values in (measures, scores)
    )
    print("Maximum f-measures for classes:")
    print(measures)
    print("Score thresholds for classes (used in demos for visualization purposes):")
    print(thresholds)
    return thresholds, measures
