"""Choose the best boxes of every image, in fixed output shapes.

Shapes: N images, P boxes of an image, D places for detections.
"""

from __future__ import annotations

import torch
from torch import Tensor

NO_LIMIT = 2**31 - 1
# Score of boxes that are none. Logits above it are scores, too.
NOTHING = -1e9
THRESHOLD = -1e8


def best(scores: Tensor, count: int, *values: Tensor) -> tuple[Tensor, ...]:
    """Return the `count` best scores (N, D), whether they are any (N, D), and their values, each (N, D, ...).

    Args:
        scores: (N, P), NOTHING where there is no box. Fewer than D boxes are padded by zeros.
        values: (N, P, ...).
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
