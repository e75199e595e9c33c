"""Keeps the forks' import path; see forks."""

from maskrcnn_benchmark.forks import cat  # noqa: F401
