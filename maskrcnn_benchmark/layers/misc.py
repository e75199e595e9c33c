"""Import path of the forks; see layers.wrappers and layers.deform_conv."""

from maskrcnn_benchmark.layers.deform_conv import DFConv2d  # noqa: F401
from maskrcnn_benchmark.layers.wrappers import BatchNorm2d, Conv2d, ConvTranspose2d, interpolate  # noqa: F401
