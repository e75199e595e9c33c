"""Former import path; see fast.compiled."""

from maskrcnn_benchmark.fast.compiled import compile_dense_part, forget_programs, is_compiled  # noqa: F401
