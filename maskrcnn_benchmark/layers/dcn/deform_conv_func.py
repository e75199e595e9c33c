"""Import path of the forks; see layers.deform_conv."""

from maskrcnn_benchmark.layers.deform_conv import deform_conv, modulated_deform_conv  # noqa: F401
