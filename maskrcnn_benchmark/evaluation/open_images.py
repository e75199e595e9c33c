"""Evaluate Open Images with its hierarchy of classes (Kuznetsova et al., IJCV 2020).

As in the Open Images challenge, an object also counts as an object of every ancestor class: a cat is an animal. The
same holds for detections, so a model that is trained on the annotated classes need not predict their ancestors. Figures
are COCO's. AP50 corresponds to the challenge's metric, the mean over classes of AP at IoU 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maskrcnn_benchmark.evaluation.coco import COCOProtocol, coco_evaluation
from maskrcnn_benchmark.evaluation.coco_evaluator import run_evaluator
from maskrcnn_benchmark.evaluation.coco_results import COCOResults
from maskrcnn_benchmark.evaluation.options import EvaluationOptions
from maskrcnn_benchmark.evaluation.predictions import Predictions


class OpenImagesProtocol(COCOProtocol):
    """Protocol for `coco_evaluation` with a class hierarchy.

    Args:
        ancestors: category ids of all ancestors, by category id.
    """

    def __init__(self, ancestors: Mapping[int, Sequence[int]]):
        self.ancestors = ancestors

    def prepare(self, ground_truth: dict) -> dict:
        """Return the ground truth with every object repeated for each ancestor of its class."""
        annotations = self._repeated(ground_truth["annotations"])
        numbered = [{**annotation, "id": k} for k, annotation in enumerate(annotations, start=1)]
        return {**ground_truth, "annotations": numbered}

    def run(self, ground_truth: dict, detections: list[dict], iou_type: str, sigmas: Sequence[float] | None = None):
        """Return the evaluator's object, see `run_evaluator`."""
        return run_evaluator(ground_truth, self._repeated(detections), iou_type, sigmas=sigmas)

    def _repeated(self, entries: list[dict]) -> list[dict]:
        return [
            entry if number == entry["category_id"] else {**entry, "category_id": number}
            for entry in entries
            for number in (entry["category_id"], *self.ancestors.get(entry["category_id"], ()))
        ]


def open_images_evaluation(
    dataset,
    predictions: Predictions,
    output_folder: str | None,
    box_only: bool = False,
    iou_types: Sequence[str] = ("bbox",),
    *,
    options: EvaluationOptions | None = None,
) -> COCOResults:
    """Evaluate detections against an OpenImagesDataset. Arguments, files and errors: see `coco_evaluation`."""
    ancestors = dataset.ancestors()
    protocol = OpenImagesProtocol(ancestors) if ancestors else None
    return coco_evaluation(dataset, predictions, output_folder, box_only, iou_types, options=options, protocol=protocol)
