"""Import path of the forks for COCO results. Their coco_results.pth files reference this module."""

from maskrcnn_benchmark.evaluation.coco import (
    prepare_for_coco_detection,
    prepare_for_coco_keypoint,
    prepare_for_coco_segmentation,
)
from maskrcnn_benchmark.evaluation.coco_evaluator import compute_thresholds_for_classes
from maskrcnn_benchmark.evaluation.coco_results import COCOResults, check_expected_results

__all__ = [
    "COCOResults",
    "check_expected_results",
    "compute_thresholds_for_classes",
    "prepare_for_coco_detection",
    "prepare_for_coco_keypoint",
    "prepare_for_coco_segmentation",
]
