"""The forks' import path of the COCO figures; coco_results.pth files written by the forks name this module."""

from maskrcnn_benchmark.evaluation.coco import prepare_for_coco_detection
from maskrcnn_benchmark.evaluation.coco_results import COCOResults, check_expected_results

__all__ = ["COCOResults", "check_expected_results", "prepare_for_coco_detection"]
