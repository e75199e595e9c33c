"""Former import path; see fast.for_inference."""

from maskrcnn_benchmark.fast.for_inference import for_inference  # noqa: F401
