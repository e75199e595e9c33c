"""Import path of the forks; see checkpoint.caffe2."""

from maskrcnn_benchmark.checkpoint.caffe2 import load_c2_format  # noqa: F401
