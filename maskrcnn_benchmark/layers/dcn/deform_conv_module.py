"""Import path of the forks; see layers.deform_conv."""

from maskrcnn_benchmark.layers.deform_conv import DeformConv, ModulatedDeformConv, ModulatedDeformConvPack  # noqa: F401
