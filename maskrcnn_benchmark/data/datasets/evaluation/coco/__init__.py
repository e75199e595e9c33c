"""The forks' import path of `coco_evaluation`, which lives in maskrcnn_benchmark.evaluation."""

from maskrcnn_benchmark.evaluation.coco import coco_evaluation

__all__ = ["coco_evaluation"]
