"""Compute the loss of semantic maps.

Shapes: N images, C classes, H x W pixels of the padded images.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap, to_label_batch


def semantic_loss(logits: Tensor, maps: Sequence[SemanticMap]) -> Tensor:
    """Return the cross entropy, averaged over the labelled pixels of all images; 0 if there are none.

    Args:
        logits: (N, C, H, W).
        maps: N maps of the images, at most (H, W); padding is not labelled.
    """
    labels = to_label_batch(maps, logits.shape[-2:])
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_LABEL, reduction="sum")
    return total / (labels != IGNORE_LABEL).sum().clamp(min=1)
