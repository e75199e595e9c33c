"""Keeps the forks' import path; see evaluation.voc."""

from maskrcnn_benchmark.evaluation.voc import voc_evaluation  # noqa: F401
