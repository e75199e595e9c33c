"""Compute the loss of semantic maps.

Shapes: N images, C classes, H x W pixels of the padded images.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from maskrcnn_benchmark.modeling.semantic.segmentation_losses import cross_entropy
from maskrcnn_benchmark.structures.semantic_map import SemanticMap, to_label_batch


def semantic_loss(logits: Tensor, maps: Sequence[SemanticMap]) -> Tensor:
    """Return the cross entropy, averaged over the labelled pixels of the whole batch, over all processes; 0 without.

    (detectron2 divides by each process's own number of pixels.)

    Args:
        logits: (N, C, H, W).
        maps: N maps of the images, at most (H, W); padding is not labelled.
    """
    return cross_entropy(logits.float(), to_label_batch(maps, logits.shape[-2:]))
