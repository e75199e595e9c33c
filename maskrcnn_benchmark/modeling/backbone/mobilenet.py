"""MobileNetV2 (Sandler et al., CVPR 2018), width 1.0, without its classifier.

Shapes: N images of H x W pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

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

STEM_CHANNELS = 32

# expansion, channels, blocks, stride of the first block (table 2 of the paper)
INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# The last block of `features` at each stride: name of its map, index in `features`, channels and stride. The names are
# those of detectron2's VoVNetV2.
OUTPUTS = {"res2": (3, 24, 4), "res3": (6, 32, 8), "res4": (13, 96, 16), "res5": (17, 320, 32)}


def conv_norm(in_channels, out_channels, kernel_size, norm, stride=1, dilation=1, groups=1):
    padding = dilation * (kernel_size // 2)
    conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
    return [conv, norm(out_channels)]


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; plus the input if the shapes agree.

    Forward takes (N, in_channels, H, W) and returns (N, out_channels, H / stride, W / stride).
    """

    def __init__(self, in_channels, out_channels, stride, expansion, norm, dilation=1):
        super().__init__()
        self.identity = stride == 1 and in_channels == out_channels
        hidden = in_channels * expansion
        layers = []
        if expansion != 1:
            layers += [*conv_norm(in_channels, hidden, 1, norm), nn.ReLU6(inplace=True)]
        layers += [*conv_norm(hidden, hidden, 3, norm, stride, dilation, groups=hidden), nn.ReLU6(inplace=True)]
        layers += conv_norm(hidden, out_channels, 1, norm)
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.identity else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 body: `features` 0 (stem) to 17, up to the last requested map.

    Args:
        norm: channels -> norm.
        freeze_at: n freezes features[0] to features[n - 1], BatchNorm statistics included; n counts blocks, not stages.
            0 or less freezes nothing.
        out_features: names of the returned maps, finest first.
        output_stride: blocks beyond it keep the size of their map; the following blocks are dilated instead.

    Forward takes (N, 3, H, W) and returns the list of these maps, channels `out_channels`, strides `out_strides`.

    Raises:
        ValueError: out_features is empty, out of order or has an unknown name; or output_stride is not supported.
    """

    def __init__(
        self,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        freeze_at: int = 0,
        out_features: Sequence[str] = tuple(OUTPUTS),
        output_stride: int = 32,
    ):
        super().__init__()
        self.out_features = pick_features(out_features, tuple(OUTPUTS))
        self.indices, self.out_channels, strides = zip(*(OUTPUTS[name] for name in out_features), strict=True)
        self.out_strides = tuple(min(stride, output_stride) for stride in strides)
        features = [nn.Sequential(*conv_norm(3, STEM_CHANNELS, 3, norm, stride=2), nn.ReLU6(inplace=True))]
        in_channels, last_dilation = STEM_CHANNELS, 1
        parts = dilated_strides((2, *(stride for *_, stride in INVERTED_RESIDUALS)), output_stride)[1:]
        for (expansion, channels, blocks, _), (stride, dilation) in zip(INVERTED_RESIDUALS, parts, strict=True):
            for block in range(blocks):
                # The first block's convolution still works on the grid of the block before it.
                block_stride, block_dilation = (1, dilation) if block else (stride, last_dilation)
                features.append(InvertedResidual(in_channels, channels, block_stride, expansion, norm, block_dilation))
                in_channels = channels
            last_dilation = dilation
        self.features = nn.Sequential(*features[: self.indices[-1] + 1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        freeze(self.features[: max(freeze_at, 0)])

    def train(self, mode: bool = True):
        super().train(mode)
        hold_frozen_statistics(self)
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in self.indices:
                maps.append(x)
        return maps


def build_mobilenet_v2(cfg) -> MobileNetV2:
    node = cfg.MODEL.BACKBONE
    norm = build_norm(cfg, default="BN")
    return MobileNetV2(norm, freeze_at=node.FREEZE_CONV_BODY_AT, output_stride=node.OUTPUT_STRIDE)


registry.BODIES.register("MNV2", MobileNetV2)
# P6 from P5 as in the FCOS forks.
register_forms("MNV2", build_mobilenet_v2, lambda cfg: cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS, p6_from_p5=True)
