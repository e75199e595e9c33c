"""Import path of the forks; see evaluation.voc."""

from maskrcnn_benchmark.evaluation.voc import voc_evaluation  # noqa: F401
