"""Global average pooling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def global_average_pool(x: Tensor) -> Tensor:
    """Average each channel over the map: (N, C, H, W) to (N, C, 1, 1)."""
    if x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16):
        # torch's mean would first copy the map to float32 (27.6 ms against 0.8 ms at 256 x 200 x 272, one core). This
        # also sums in float32.
        return F.avg_pool2d(x, x.shape[2:])
    return x.mean((2, 3), keepdim=True)
