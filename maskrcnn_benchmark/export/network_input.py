"""Convert pixels to the input of a network, inside the exported graph.

Shapes: N images, H x W their padded size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NetworkInput(nn.Module):
    """Normalize pixels as `data.transforms.Normalize` does, and zero what is padding.

    Args:
        mean, std: 3 numbers each, in the order and range of the result.
        to_bgr255: the result is BGR of 0..255 instead of RGB of 0..1.

    Forward takes images (N, H, W, 3) uint8 RGB and sizes (N, 2) int64, (height, width) of each image before padding.
    It returns (N, 3, H, W) float32, 0 in the padding.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], to_bgr255: bool):
        super().__init__()
        self.to_bgr255 = to_bgr255
        self.register_buffer("mean", torch.tensor([float(value) for value in mean]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([float(value) for value in std]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = pixels.flip(1) if self.to_bgr255 else pixels / 255
        pixels = (pixels - self.mean) / self.std
        rows = torch.arange(images.shape[1], device=images.device)[None, :, None] < sizes[:, 0, None, None]
        columns = torch.arange(images.shape[2], device=images.device)[None, None, :] < sizes[:, 1, None, None]
        return torch.where((rows & columns)[:, None], pixels, 0.0)
