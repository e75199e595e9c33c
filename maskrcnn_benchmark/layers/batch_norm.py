"""Keeps the forks' import path; see layers.norm."""

from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d  # noqa: F401
