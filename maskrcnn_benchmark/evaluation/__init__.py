"""Evaluate predictions. `evaluate` selects the evaluation by the dataset's type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from maskrcnn_benchmark.data.datasets import (
    AbstractDataset,
    COCODataset,
    COCOPanopticDataset,
    COCOSemanticDataset,
    LVISDataset,
    OpenImagesDataset,
    PascalVOCDataset,
    SemanticDataset,
)
from maskrcnn_benchmark.data.datasets.records_dataset import RecordsDataset
from maskrcnn_benchmark.evaluation.coco import coco_evaluation
from maskrcnn_benchmark.evaluation.coco_results import (
    COCOResults,
    Results,
    check_expected_results,
    compare_with_expected,
)
from maskrcnn_benchmark.evaluation.lvis import lvis_evaluation
from maskrcnn_benchmark.evaluation.open_images import open_images_evaluation
from maskrcnn_benchmark.evaluation.options import EvaluationOptions
from maskrcnn_benchmark.evaluation.panoptic import panoptic_evaluation
from maskrcnn_benchmark.evaluation.predictions import load_predictions, numbered, save_predictions
from maskrcnn_benchmark.evaluation.semantic_evaluation import semantic_evaluation
from maskrcnn_benchmark.evaluation.voc import VOCResults, voc_evaluation

__all__ = [
    "COCOResults",
    "EvaluationOptions",
    "Results",
    "VOCResults",
    "check_expected_results",
    "compare_with_expected",
    "evaluate",
    "load_predictions",
    "save_predictions",
]

# The first entry with a matching type is used; list a subclass before its base.
EVALUATIONS = (
    (LVISDataset, lvis_evaluation),
    (COCODataset, coco_evaluation),
    (OpenImagesDataset, open_images_evaluation),
    (RecordsDataset, coco_evaluation),
    (COCOPanopticDataset, panoptic_evaluation),
    (SemanticDataset, semantic_evaluation),
    (COCOSemanticDataset, semantic_evaluation),
    (PascalVOCDataset, voc_evaluation),
    (AbstractDataset, coco_evaluation),
)


def evaluate(
    dataset,
    predictions,
    output_folder,
    *,
    options: EvaluationOptions | None = None,
    expected_results=(),
    expected_results_sigma_tol: float = 4,
    **kwargs,
) -> Results:
    """Run the evaluation for the dataset's type, and compare the figures with the expected ones.

    Args:
        dataset: an instance of a type in EVALUATIONS.
        predictions: list of BoxList by dataset index, in the size of the network input.
        output_folder: folder for result files; None or "" writes none.
        options: see EvaluationOptions.
        expected_results, expected_results_sigma_tol: see compare_with_expected; the outcome is logged.
        **kwargs: fields of EvaluationOptions, which override those of `options`.

    Returns:
        The figures. `as_expected` is False if one of them is not as expected.

    Raises:
        NotImplementedError: there is no evaluation for this type.
    """
    options = replace(options or EvaluationOptions(), **kwargs)
    run = _evaluation_of(dataset, predictions)
    results = run(dataset, predictions, output_folder, options.box_only, options.iou_types, options=options)
    results.as_expected = check_expected_results(results, expected_results, expected_results_sigma_tol)
    return results


def _evaluation_of(dataset, predictions) -> Callable[..., Results]:
    if isinstance(dataset, COCOPanopticDataset) and _only_semantic(predictions):
        return semantic_evaluation
    for kind, evaluation in EVALUATIONS:
        if isinstance(dataset, kind):
            return evaluation
    known = ", ".join(kind.__name__ for kind, _ in EVALUATIONS)
    raise NotImplementedError(
        f"Unsupported dataset type {type(dataset).__name__}. Supported are {known} and classes derived from them."
    )


def _only_semantic(predictions) -> bool:
    """Return whether the predictions are those of a SemanticSegmentor, without segments."""
    fields = [prediction.fields() for _, prediction in numbered(predictions)]
    return bool(fields) and all("semantic" in names and "panoptic" not in names for names in fields)
