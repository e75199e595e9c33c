"""Exchange data with the device with as few host waits as possible.

A GPU works through the host's queue. When the host reads a number that is not computed yet, such as the size of a
selection, it waits for the whole queue. The GPU then idles until the host has filled the queue again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def true_indices(masks: Sequence[Tensor]) -> list[Tensor]:
    """Return the ascending int64 indices of the true entries of each mask (n_i,), with one host wait for all masks.

    The masks are on one device.
    """
    if not masks:
        return []
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    return [torch.nonzero_static(mask, size=count).squeeze(1) for mask, count in zip(masks, counts, strict=True)]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to another device without waiting for the copy."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from pageable memory the driver copies only after the whole queue
    return tensor.to(device, non_blocking=True)
