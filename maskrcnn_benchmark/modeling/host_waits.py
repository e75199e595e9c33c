"""Exchanges with the device for which the host waits as seldom as can be.

A GPU works through what the host has queued. Whoever asks for a number that it is yet to compute, the size of a
selection for instance, waits for all of the queue, and the GPU then waits for the host to fill it again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def true_indices(masks: Sequence[Tensor]) -> list[Tensor]:
    """Where each of several masks (n_i,) of one device is true: ascending indices, int64. One wait for all of them."""
    if not masks:
        return []
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    return [torch.nonzero_static(mask, size=count).squeeze(1) for mask, count in zip(masks, counts, strict=True)]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on another device; the host does not wait until it is there."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from other memory the driver copies only after all that is queued
    return tensor.to(device, non_blocking=True)
