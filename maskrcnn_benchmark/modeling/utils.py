"""Import path of the forks; see forks."""

from maskrcnn_benchmark.forks import cat  # noqa: F401
