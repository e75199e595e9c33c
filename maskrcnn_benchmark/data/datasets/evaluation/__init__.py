"""Import path of the forks; see maskrcnn_benchmark.evaluation."""

from maskrcnn_benchmark.evaluation import evaluate

__all__ = ["evaluate"]
