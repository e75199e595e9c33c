"""Import path of the forks; see forks."""

from maskrcnn_benchmark.forks import concat_box_prediction_layers, permute_and_flatten  # noqa: F401
