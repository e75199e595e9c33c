"""Import path of the forks; see forks."""

from maskrcnn_benchmark.forks import findContours  # noqa: F401
