"""Keeps the forks' import path; see forks."""

from maskrcnn_benchmark.forks import findContours  # noqa: F401
