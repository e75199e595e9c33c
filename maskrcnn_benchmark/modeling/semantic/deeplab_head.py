"""Head of DeepLabV3 (Chen et al., 2017, section 3.3) and decoder of DeepLabV3+ (Chen et al., ECCV 2018, section 3.1).

Shapes: N images, K classes, C channels of the body's last map and h x w its size, D channels of the head, C_low
channels of the body's map of stride 4 and h' x w' its size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.norm import get_norm
from maskrcnn_benchmark.modeling.make_layers import group_norm_options
from maskrcnn_benchmark.modeling.semantic.maps import upsample


class DeepLabHead(nn.Module):
    """Atrous spatial pyramid pooling and a classifier.

    A 1x1 convolution, three dilated 3x3 convolutions and global mean pooling run in parallel. A 1x1 convolution joins
    them. A norm and a ReLU follow each convolution.

    Args:
        in_channels: C.
        num_classes: K.
        channels: D.
        rates: dilations of the three 3x3 convolutions.
        norm: channels -> norm.
        dropout: probability of dropping a value of the joined map in training.
        extra_conv: another 3x3 convolution, norm and ReLU before the classifier.
        decoder: joins the map of stride 4 before the classifier; None for DeepLabV3.

    Forward takes the body's maps, finest first. It uses the last, and for the decoder the first. It returns logits
    (N, K, h, w), with a decoder (N, K, h', w'). The module names are those of VoVNet-DeepLabV3's checkpoints.

    Raises:
        ValueError: rates are not three integers of 1 or more; or, in forward, a batch norm is trained on one image.
    """

    norm_after = {**{f"aspp{k}": f"aspp{k}_bn" for k in range(1, 6)}, "conv2": "bn2", "extra_conv": "extra_bn"}

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        dropout: float = 0.0,
        extra_conv: bool = False,
        decoder: nn.Module | None = None,
    ):
        super().__init__()
        if len(rates) != 3 or min(rates) < 1:
            raise ValueError(f"rates are {tuple(rates)}; expected three dilations of 1 or more (MODEL.DEEPLAB.RATES)")
        self.aspp1 = Conv2d(in_channels, channels, 1, bias=False)
        self.aspp2 = conv3x3(in_channels, channels, rates[0])
        self.aspp3 = conv3x3(in_channels, channels, rates[1])
        self.aspp4 = conv3x3(in_channels, channels, rates[2])
        self.aspp5 = Conv2d(in_channels, channels, 1, bias=False)
        self.aspp1_bn = norm(channels)
        self.aspp2_bn = norm(channels)
        self.aspp3_bn = norm(channels)
        self.aspp4_bn = norm(channels)
        self.aspp5_bn = norm(channels)
        self.conv2 = Conv2d(5 * channels, channels, 1, bias=False)
        self.bn2 = norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.extra_conv = conv3x3(channels, channels) if extra_conv else None
        self.extra_bn = norm(channels) if extra_conv else None
        self.decoder = decoder
        self.conv3 = Conv2d(channels, num_classes, 1)
        initialize(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[-1]
        if self.training and len(x) == 1 and type(self.aspp5_bn) is nn.BatchNorm2d and self.aspp5_bn.training:
            raise ValueError(
                "a batch norm of the head gets one value per channel, the mean of one image: train with two or more "
                "images per process (SOLVER.IMS_PER_BATCH, ACCUMULATION_STEPS), or set MODEL.DEEPLAB.NORM to 'GN' or "
                "'FrozenBN'"
            )
        mean = x.mean((2, 3), keepdim=True)
        branches = (
            F.relu(self.aspp1_bn(self.aspp1(x))),
            F.relu(self.aspp2_bn(self.aspp2(x))),
            F.relu(self.aspp3_bn(self.aspp3(x))),
            F.relu(self.aspp4_bn(self.aspp4(x))),
            upsample(F.relu(self.aspp5_bn(self.aspp5(mean))), x.shape[-2:]),
        )
        x = F.relu(self.bn2(self.conv2(torch.cat(branches, dim=1))))
        x = self.dropout(x)
        if self.extra_conv is not None:
            x = F.relu(self.extra_bn(self.extra_conv(x)))
        if self.decoder is not None:
            x = self.decoder(x, maps[0])
        return self.conv3(x)


class DeepLabDecoder(nn.Module):
    """DeepLabV3+ decoder: join the upsampled map of the head and the reduced map of stride 4 by two 3x3 convolutions.

    Args:
        low_level_channels: C_low.
        reduced_channels: C_low after reduction by a 1x1 convolution.
        channels: D.
        norm: channels -> norm; a ReLU follows each.
        align_corners: align_corners of the upsampling.

    Forward takes (N, D, h, w) and (N, C_low, h', w') and returns (N, D, h', w').
    """

    norm_after = {"reduce": "reduce_bn", "conv1": "bn1", "conv2": "bn2"}

    def __init__(
        self,
        low_level_channels: int,
        reduced_channels: int = 48,
        channels: int = 256,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        align_corners: bool = True,
    ):
        super().__init__()
        self.reduce = Conv2d(low_level_channels, reduced_channels, 1, bias=False)
        self.reduce_bn = norm(reduced_channels)
        self.conv1 = conv3x3(channels + reduced_channels, channels)
        self.bn1 = norm(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = norm(channels)
        self.align_corners = align_corners

    def forward(self, x: Tensor, low_level: Tensor) -> Tensor:
        low_level = F.relu(self.reduce_bn(self.reduce(low_level)))
        x = torch.cat((upsample(x, low_level.shape[-2:], self.align_corners), low_level), dim=1)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


def conv3x3(in_channels: int, out_channels: int, dilation: int = 1) -> Conv2d:
    return Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)


def initialize(module: nn.Module) -> None:
    """Initialize all convolutions: weights by He's normal distribution (fan out), biases to 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def build_deeplab_head(cfg, in_channels: Sequence[int]) -> DeepLabHead:
    """Build the head of MODEL.DEEPLAB and MODEL.SEM_SEG_HEAD.NUM_CLASSES; in_channels are those of the body's maps."""
    node = cfg.MODEL.DEEPLAB
    options = {
        "GN": group_norm_options(cfg),
        "FrozenBN": {"eps": node.NORM_EPS},
    }.get(node.NORM, {"eps": node.NORM_EPS, "momentum": node.NORM_MOMENTUM})
    norm = partial(get_norm, node.NORM, **options)
    decoder = None
    if node.DECODER:
        decoder = DeepLabDecoder(
            in_channels[0], node.DECODER_LOW_LEVEL_CHANNELS, node.CHANNELS, norm, node.ALIGN_CORNERS
        )
        initialize(decoder)
    return DeepLabHead(
        in_channels[-1],
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        channels=node.CHANNELS,
        rates=node.RATES,
        norm=norm,
        dropout=node.DROPOUT,
        extra_conv=node.EXTRA_CONV,
        decoder=decoder,
    )
