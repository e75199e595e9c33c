"""Call models in evaluation, whether or not they accept the sizes of the original images."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from maskrcnn_benchmark.structures.bounding_box import BoxList


def run_model(model: nn.Module, images, sizes: Iterable[tuple[int, int]]) -> list[BoxList]:
    """Run a model in evaluation.

    Args:
        images: as the model's forward takes them.
        sizes: (width, height) of the original images. They are read only if the model accepts `output_sizes`.
    """
    if getattr(model, "takes_output_sizes", False):  # models of other projects lack the attribute
        return model(images, output_sizes=list(sizes))
    return model(images)
