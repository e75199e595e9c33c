"""Select the best boxes of each image, with fixed output shapes.

Shapes: N images, P boxes of an image, D detection slots of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor

NO_LIMIT = 2**31 - 1
# Score of slots without a box. It is below all logits, because proposals may be ranked by logit. A slot holds a box if
# its score exceeds THRESHOLD.
NOTHING = -1e9
THRESHOLD = -1e8


def best(scores: Tensor, count: int, *values: Tensor) -> tuple[Tensor, ...]:
    """Select the D = `count` boxes with the best scores.

    Args:
        scores: (N, P), NOTHING where there is no box.
        count: D.
        values: (N, P, ...) of the boxes.

    Returns:
        Scores (N, D) in descending order, a mask (N, D) bool of the used slots, and the values, each (N, D, ...).
        Unused slots are 0.
    """
    scores = torch.cat((scores, scores.new_full((scores.shape[0], count), NOTHING)), dim=1)
    scores, index = scores.topk(count, dim=1)
    found = scores > THRESHOLD
    results = []
    for value in values:
        value = torch.cat((value, value.new_zeros((value.shape[0], count, *value.shape[2:]))), dim=1)
        shape = (index.shape[0], count, *[1] * (value.dim() - 2))
        gathered = value.gather(1, index.reshape(shape).expand(-1, -1, *value.shape[2:]))
        results.append(torch.where(found.reshape(shape), gathered, torch.zeros((), dtype=value.dtype)))
    return torch.where(found, scores, 0.0), found, *results


def clip(boxes: Tensor, sizes: Tensor, offset: float) -> Tensor:
    """Clip boxes (N, P, 4) to images of sizes (N, 2), (height, width): coordinates within [0, side - offset]."""
    limit = sizes.flip(1).repeat(1, 2)[:, None].to(boxes.dtype) - offset
    return torch.minimum(boxes.clamp(min=0), limit)
