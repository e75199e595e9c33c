"""Import path of the forks; see layers.norm."""

from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d  # noqa: F401
