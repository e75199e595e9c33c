"""Import path of the forks; see checkpoint.download."""

from maskrcnn_benchmark.checkpoint.download import cache_url  # noqa: F401
