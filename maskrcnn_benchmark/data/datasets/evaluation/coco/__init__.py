"""Import path of the forks; see evaluation.coco."""

from maskrcnn_benchmark.evaluation.coco import coco_evaluation

__all__ = ["coco_evaluation"]
