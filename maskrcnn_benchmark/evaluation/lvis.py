"""LVIS evaluation (Gupta et al., CVPR 2019): average precision where images are annotated for some categories only.

Detections of a category count in an image only if the image has an annotated object of it, or is marked as having none.
Where not every object of a category is annotated, detections that match no object are ignored. At most 300 detections
of an image are evaluated, the best of all categories. Both rules are expressed in COCO's terms, so that COCO's
evaluators apply them: such detections are left out, and a crowd region covers the whole image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.data.datasets.lvis import FREQUENCIES, Federation
from maskrcnn_benchmark.evaluation.coco import COCOProtocol, coco_evaluation
from maskrcnn_benchmark.evaluation.coco_evaluator import run_evaluator
from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED, COCOResults
from maskrcnn_benchmark.evaluation.options import EvaluationOptions
from maskrcnn_benchmark.evaluation.predictions import Predictions
from maskrcnn_benchmark.structures.rle import compress_counts

MOST_DETECTIONS = 300


class LVISResults(COCOResults):
    """COCO's figures, and APr, APc, APf: AP of rare, common and frequent categories."""

    METRICS = {
        task: [*COCOResults.METRICS[task], *(f"AP{letter}" for letter in FREQUENCIES)] for task in ("bbox", "segm")
    } | {"box_proposal": COCOResults.METRICS["box_proposal"]}


class LVISProtocol(COCOProtocol):
    """LVIS protocol for `coco_evaluation`.

    Args:
        federation: see LVISDataset.
    """

    results = LVISResults

    def __init__(self, federation: Federation):
        self.federation = federation

    def run(self, ground_truth: dict, detections: list[dict], iou_type: str, sigmas=None):
        """Return the evaluator's object, see `run_evaluator`."""
        detections = known_detections(best_detections(detections), ground_truth, self.federation)
        ground_truth = with_incomplete_regions(ground_truth, self.federation)
        return run_evaluator(ground_truth, detections, iou_type, max_detections=MOST_DETECTIONS)

    def update(self, results: LVISResults, coco_eval) -> None:
        """Copy the figures of an evaluator's object into the results, and print them."""
        task = coco_eval.params.iouType
        figures = results.results[task]
        precision = coco_eval.eval["precision"][..., -1]  # (T, R, K, A)
        thresholds = np.asarray(coco_eval.params.iouThrs)
        figures["AP"] = _mean(precision[..., 0])
        figures["AP50"] = _mean(precision[np.isclose(thresholds, 0.5), ..., 0])
        figures["AP75"] = _mean(precision[np.isclose(thresholds, 0.75), ..., 0])
        for area, letter in enumerate("sml", start=1):
            figures[f"AP{letter}"] = _mean(precision[..., area])
        letters = np.array([self.federation.frequency.get(int(number), "") for number in coco_eval.params.catIds])
        for letter in FREQUENCIES:
            figures[f"AP{letter}"] = _mean(precision[:, :, letters == letter, 0])
        for metric, value in figures.items():
            print(f" {task} {metric:<5} at most {MOST_DETECTIONS} detections: {value:.3f}", flush=True)


def _mean(precision: np.ndarray) -> float:
    computed = precision[precision > NOT_COMPUTED]
    return float(computed.mean()) if computed.size else NOT_COMPUTED


def best_detections(detections: list[dict], most: int = MOST_DETECTIONS) -> list[dict]:
    """Return the `most` detections of each image with the highest scores, of all categories together."""
    of_images: dict[object, list[dict]] = defaultdict(list)
    for detection in detections:
        of_images[detection["image_id"]].append(detection)
    return [
        detection
        for group in of_images.values()
        for detection in (group if len(group) <= most else sorted(group, key=lambda d: -d["score"])[:most])
    ]


def known_detections(detections: list[dict], ground_truth: dict, federation: Federation) -> list[dict]:
    """Return the detections of categories that are annotated in, or known to be absent from, their image."""
    known = {image["id"]: set(federation.absent.get(image["id"], ())) for image in ground_truth["images"]}
    for annotation in ground_truth["annotations"]:
        known[annotation["image_id"]].add(annotation["category_id"])
    return [detection for detection in detections if detection["category_id"] in known[detection["image_id"]]]


def with_incomplete_regions(ground_truth: dict, federation: Federation) -> dict:
    """Return the ground truth with a crowd region of each category that is not completely annotated in an image."""
    annotations = list(ground_truth["annotations"])
    for image in ground_truth["images"]:
        width, height = int(image["width"]), int(image["height"])
        for category_id in sorted(federation.incomplete.get(image["id"], ())):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category_id,
                    "bbox": [-width, -height, 3 * width, 3 * height],  # detections may reach out of the image
                    "segmentation": compress_counts(np.array([0, height * width]), height, width),
                    "area": width * height,
                    "iscrowd": 1,
                }
            )
    return {**ground_truth, "annotations": annotations}


def lvis_evaluation(
    dataset,
    predictions: Predictions,
    output_folder: str | None,
    box_only: bool = False,
    iou_types: Sequence[str] = ("bbox",),
    *,
    options: EvaluationOptions | None = None,
) -> LVISResults:
    """Evaluate detections against an LVISDataset. Arguments, files and errors: see `coco_evaluation`.

    Raises:
        ValueError: as in `coco_evaluation`, or iou_types has "keypoints", or the annotation file is not an LVIS file.
    """
    if "keypoints" in iou_types:
        raise ValueError("LVIS has no keypoints to evaluate; set MODEL.KEYPOINT_ON to False")
    protocol = LVISProtocol(dataset.federation())
    return coco_evaluation(dataset, predictions, output_folder, box_only, iou_types, options=options, protocol=protocol)
