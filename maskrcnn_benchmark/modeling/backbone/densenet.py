"""DenseNet (Huang et al., CVPR 2017): every layer of a block reads the maps of all layers before it.

The module names are torchvision's, without its classifier.

Shapes: N images of H x W pixels, C channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.body import (
    build_norm,
    dilated_strides,
    freeze,
    hold_frozen_statistics,
    pick_features,
)
from maskrcnn_benchmark.modeling.backbone.fpn import register_forms

FEATURES = ("res2", "res3", "res4", "res5")
BOTTLENECK = 4  # channels of a layer's 1x1 convolution, as a multiple of the growth rate


@dataclass(frozen=True)
class DenseNetSpec:
    """Sizes of a variant (table 1 of the paper).

    Args:
        growth: channels that each layer adds.
        layers: layers of each of the four blocks.
        stem_channels: channels of the first convolution.
    """

    growth: int
    layers: tuple[int, ...]
    stem_channels: int


VARIANTS = {
    "D-121": DenseNetSpec(32, (6, 12, 24, 16), 64),
    "D-161": DenseNetSpec(48, (6, 12, 36, 24), 96),
    "D-169": DenseNetSpec(32, (6, 12, 32, 32), 64),
    "D-201": DenseNetSpec(32, (6, 12, 48, 32), 64),
}


class DenseLayer(nn.Module):
    """Norm, ReLU and 1x1 convolution, then norm, ReLU and 3x3 convolution (DenseNet-B).

    Forward takes the maps of the block so far (N, C, H, W) and returns new ones (N, growth, H, W).
    """

    norm_after = {"conv1": "norm2"}

    def __init__(self, in_channels: int, growth: int, norm: Callable[[int], nn.Module], dilation: int = 1):
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = Conv2d(in_channels, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = norm(BOTTLENECK * growth)
        self.conv2 = Conv2d(BOTTLENECK * growth, growth, 3, padding=dilation, dilation=dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.relu(self.norm1(x)))
        return self.conv2(F.relu(self.norm2(x)))


class DenseBlock(nn.Sequential):
    """Apply each layer to the concatenation of the input and all maps before: (N, C + layers * growth, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = torch.cat((x, layer(x)), dim=1)
        return x


class Transition(nn.Module):
    """Norm, ReLU, 1x1 convolution to half the channels and 2x2 mean pooling.

    Args:
        pools: False leaves the pooling out, so that the map keeps its size.

    Forward returns two maps: the one after the ReLU, which is the block's result, and the input of the next block.
    """

    def __init__(self, in_channels: int, norm: Callable[[int], nn.Module], pools: bool = True):
        super().__init__()
        self.norm = norm(in_channels)
        self.conv = Conv2d(in_channels, in_channels // 2, 1, bias=False)
        self.pools = pools

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        result = F.relu(self.norm(x))
        x = self.conv(result)
        # A side of 1 stays 1, so that images of any size pass.
        return result, F.avg_pool2d(x, [min(side, 2) for side in x.shape[-2:]], 2) if self.pools else x


class DenseNet(nn.Module):
    """DenseNet body: `features` with the stem, dense blocks and transitions, up to the last requested map.

    Args:
        spec: the variant's numbers.
        norm: channels -> norm.
        freeze_at: n freezes the stem (n >= 1) and the blocks below n (n >= 2) with the transitions after them,
            BatchNorm statistics included; 0 or less freezes nothing.
        out_features: names of the returned maps, finest first: those of the blocks, each after the following norm and
            ReLU.
        output_stride: transitions beyond it do not pool; the 3x3 convolutions after them are dilated instead.

    Forward takes (N, 3, H, W) and returns the list of these maps, channels `out_channels`, strides `out_strides`.

    Raises:
        ValueError: out_features is empty, out of order or has an unknown name; or output_stride is not supported.
    """

    def __init__(
        self,
        spec: DenseNetSpec,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        freeze_at: int = 0,
        out_features: Sequence[str] = FEATURES,
        output_stride: int = 32,
    ):
        super().__init__()
        self.out_features = pick_features(out_features, FEATURES)
        last = FEATURES.index(self.out_features[-1]) + 1
        channels, stride = spec.stem_channels, 4
        all_channels, all_strides = [], []
        self.features = nn.Sequential(
            OrderedDict(
                conv0=Conv2d(3, channels, 7, 2, 3, bias=False),
                norm0=norm(channels),
                relu0=nn.ReLU(inplace=True),
                pool0=nn.MaxPool2d(3, 2, 1),
            )
        )
        parts = dilated_strides((4, 2, 2, 2), output_stride)
        for block in range(1, last + 1):
            layers = OrderedDict()
            for i in range(1, spec.layers[block - 1] + 1):
                layers[f"denselayer{i}"] = DenseLayer(channels, spec.growth, norm, parts[block - 1][1])
                channels += spec.growth
            self.features.add_module(f"denseblock{block}", DenseBlock(layers))
            all_channels.append(channels)
            all_strides.append(stride)
            if block == len(FEATURES):
                self.features.add_module("norm5", norm(channels))
            else:
                pools = parts[block][0] > 1
                self.features.add_module(f"transition{block}", Transition(channels, norm, pools))
                channels, stride = channels // 2, stride * parts[block][0]
        asked = [FEATURES.index(name) for name in self.out_features]
        self.out_channels = tuple(all_channels[i] for i in asked)
        self.out_strides = tuple(all_strides[i] for i in asked)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        # The names end with a number: 0 in the stem, 1 to 4 in the blocks and transitions, 5 in the last norm.
        freeze(part for name, part in self.features.named_children() if int(name[-1]) < freeze_at)

    def train(self, mode: bool = True):
        super().train(mode)
        hold_frozen_statistics(self)
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for module in self.features:
            if isinstance(module, Transition):
                result, x = module(x)
                maps.append(result)
            else:
                x = module(x)
        if hasattr(self.features, "norm5"):
            maps.append(F.relu(x))
        return [result for name, result in zip(FEATURES, maps, strict=False) if name in self.out_features]


def build_densenet(cfg, variant: str) -> DenseNet:
    """Build the body that MODEL.BACKBONE.CONV_BODY names, or `variant` if that key names no DenseNet."""
    asked = cfg.MODEL.BACKBONE.CONV_BODY.split("-FPN")[0]
    return DenseNet(
        VARIANTS.get(asked, VARIANTS[variant]),
        build_norm(cfg, default="FrozenBN"),
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT,
        output_stride=cfg.MODEL.BACKBONE.OUTPUT_STRIDE,
    )


for _name, _spec in VARIANTS.items():
    registry.BODIES.register(_name, partial(DenseNet, _spec))
    register_forms(_name, partial(build_densenet, variant=_name), lambda cfg: cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS)
