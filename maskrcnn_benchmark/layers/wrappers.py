"""Modules that the forks wrapped for empty batches. torch itself supports these now."""

from torch.nn import BatchNorm2d
from torch.nn.functional import interpolate

from maskrcnn_benchmark.layers.conv import Conv2d, ConvTranspose2d

__all__ = ["BatchNorm2d", "Conv2d", "ConvTranspose2d", "interpolate"]
