"""Convert pixels to the input of a network, inside the exported graph.

Shapes: N images, H x W their padded size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NetworkInput(nn.Module):
    """Normalization of pixels as in `data.transforms.Normalize`, with zeros in the padding.

    Args:
        mean, std: 3 numbers each, in the channel order and value range that to_bgr255 selects.
        to_bgr255: normalize BGR 0..255 instead of RGB 0..1.

    Forward takes images (N, H, W, 3) uint8 RGB and sizes (N, 2) int64, (height, width) of each image before padding.
    It returns (N, 3, H, W) float32, 0 in the padding.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], to_bgr255: bool):
        super().__init__()
        self.to_bgr255 = to_bgr255
        self.mean, self.std = ([float(value) for value in values] for values in (mean, std))

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        rows = torch.arange(images.shape[1], device=images.device)[None, :, None] < sizes[:, 0, None, None]
        columns = torch.arange(images.shape[2], device=images.device)[None, None, :] < sizes[:, 1, None, None]
        inside = rows & columns
        # Channel by channel: runtimes are slow at broadcasting over a last dimension of 3.
        channels = [channel.float() for channel in images.unbind(dim=3)]
        channels = channels[::-1] if self.to_bgr255 else [channel / 255 for channel in channels]
        normalized = [(channel - mean) / std for channel, mean, std in zip(channels, self.mean, self.std, strict=True)]
        return torch.stack([torch.where(inside, channel, 0.0) for channel in normalized], dim=1)
