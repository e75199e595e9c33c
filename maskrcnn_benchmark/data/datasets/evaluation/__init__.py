"""The forks' import path of `evaluate`, which lives in maskrcnn_benchmark.evaluation."""

from maskrcnn_benchmark.evaluation import evaluate

__all__ = ["evaluate"]
