"""VoVNet (Lee et al., CVPRW 2019): stages of One-Shot Aggregation (OSA) blocks.

The module names, with a slash in them, are the originals': the state_dict keys of all VoVNet forks.

Shapes: N images of H x W pixels, C channels.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.body import build_norm, freeze, hold_frozen_statistics
from maskrcnn_benchmark.modeling.backbone.fpn import add_fpn, add_fpn_p3_to_p7


@dataclass(frozen=True)
class OSASpec:
    """The numbers of a variant.

    Args:
        conv_channels: channels of the 3x3 convolutions of stage 2 to 5.
        out_channels: channels after aggregation, that is of the maps, of stage 2 to 5.
        blocks: OSA blocks of stage 2 to 5.
        layers: 3x3 convolutions of a block.
        stem: channels of the three convolutions of the stem.
    """

    conv_channels: tuple[int, ...]
    out_channels: tuple[int, ...]
    blocks: tuple[int, ...]
    layers: int = 5
    stem: tuple[int, ...] = (64, 64, 128)


_CONV, _OUT = (128, 160, 192, 224), (256, 512, 768, 1024)

VARIANTS = {
    "V-27": OSASpec((64, 80, 96, 112), (128, 256, 384, 512), (1, 1, 1, 1)),
    "V-39": OSASpec(_CONV, _OUT, (1, 1, 2, 2)),
    "V-57": OSASpec(_CONV, _OUT, (1, 1, 4, 3)),
    "V-69": OSASpec(_CONV, _OUT, (1, 1, 6, 3)),
    "V-75": OSASpec(_CONV, _OUT, (1, 2, 6, 3)),
    "V-93": OSASpec(_CONV, _OUT, (1, 3, 8, 3)),
}


def conv_norm_relu(name, in_channels, out_channels, norm, kernel_size=3, stride=1):
    """The three layers, by the names that they get in their nn.Sequential."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    return {f"{name}/conv": conv, f"{name}/norm": norm(out_channels), f"{name}/relu": nn.ReLU(inplace=True)}


class CeilMaxPool(nn.Module):
    """3x3 maximum with stride 2 that starts at the first point: a side of n becomes ceil((n - 3) / 2) + 1.

    A side of 1 stays 1 (there the formula gives 0), so that pictures of any size pass.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height == 1 or width == 1:
            x = F.pad(x, (0, int(width == 1), 0, int(height == 1)), mode="replicate")
        return F.max_pool2d(x, 3, 2, ceil_mode=True)


class OSABlock(nn.Module):
    """3x3 convolutions in a chain, whose input and outputs are all concatenated once and reduced by a 1x1 convolution.

    Args:
        name: prefix of the module names, as OSA3_1 for the first block of stage 3.
        layers: 3x3 convolutions in the chain.
        identity: add the input to the result (after its ReLU); the channels have to agree.

    Forward: (N, in_channels, H, W) to (N, out_channels, H, W).
    """

    def __init__(self, name, in_channels, conv_channels, out_channels, layers, norm, identity=False):
        super().__init__()
        self.identity = identity
        chain = [in_channels, *[conv_channels] * layers]
        self.layers = nn.ModuleList(
            nn.Sequential(OrderedDict(conv_norm_relu(f"{name}_{i}", chain[i], conv_channels, norm)))
            for i in range(layers)
        )
        self.concat = nn.Sequential(
            OrderedDict(conv_norm_relu(f"{name}_concat", sum(chain), out_channels, norm, kernel_size=1))
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        out = self.concat(torch.cat(outputs, dim=1))
        return out + x if self.identity else out


class VoVNet(nn.Module):
    """The body: a stem of stride 4 and four stages, named stem, stage2, ..., stage5.

    Args:
        spec: the variant's numbers.
        norm: channels -> norm.
        freeze_at: n takes the stem (n >= 1) and the stages up to n (n >= 2) out of training, statistics of
            BatchNorm included; 0 or less freezes nothing.

    Forward takes (N, 3, H, W) and returns the maps of stage 2 to 5, channels `out_channels`, strides `out_strides`.
    """

    out_strides = (4, 8, 16, 32)

    def __init__(self, spec: OSASpec, norm: Callable[[int], nn.Module] = FrozenBatchNorm2d, freeze_at: int = 0):
        super().__init__()
        self.out_channels = spec.out_channels
        self.stem = nn.Sequential(
            OrderedDict(
                conv_norm_relu("stem_1", 3, spec.stem[0], norm, stride=2)
                | conv_norm_relu("stem_2", spec.stem[0], spec.stem[1], norm)
                | conv_norm_relu("stem_3", spec.stem[1], spec.stem[2], norm, stride=2)
            )
        )
        inputs = (spec.stem[-1], *spec.out_channels)
        for i in range(4):
            self.add_module(f"stage{i + 2}", self._make_stage(i, inputs[i], spec, norm))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        freeze([self.stem, *self._stages()][: max(freeze_at, 0)])

    @staticmethod
    def _make_stage(i, in_channels, spec, norm):
        # The stem has brought the map to stride 4 already, so stage 2 does not pool.
        modules = OrderedDict(Pooling=CeilMaxPool()) if i else OrderedDict()
        for block in range(1, spec.blocks[i] + 1):
            name = f"OSA{i + 2}_{block}"
            modules[name] = OSABlock(
                name, in_channels, spec.conv_channels[i], spec.out_channels[i], spec.layers, norm, identity=block > 1
            )
            in_channels = spec.out_channels[i]
        return nn.Sequential(modules)

    def _stages(self):
        return [self.stage2, self.stage3, self.stage4, self.stage5]

    def train(self, mode: bool = True):
        super().train(mode)
        hold_frozen_statistics(self)
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self._stages():
            x = stage(x)
            maps.append(x)
        return maps


def build_vovnet(cfg, variant: str) -> VoVNet:
    """The body of MODEL.BACKBONE.CONV_BODY, or of `variant` where that key names no VoVNet.

    Raises:
        ValueError: a list in MODEL.VOVNET has not one number for each stage (or stem convolution).
    """
    node = cfg.MODEL.VOVNET
    asked = "-".join(cfg.MODEL.BACKBONE.CONV_BODY.split("-")[:2])
    variant = asked if asked in VARIANTS else variant
    given = {
        "stem": ("STEM_CHANNELS", node.STEM_CHANNELS, 3),
        "conv_channels": ("STAGE_CONV_CHANNELS", node.STAGE_CONV_CHANNELS, 4),
        "out_channels": ("STAGE_OUT_CHANNELS", node.STAGE_OUT_CHANNELS, 4),
        "blocks": ("BLOCKS_PER_STAGE", node.BLOCKS_PER_STAGE, 4),
    }
    changes = {}
    for field, (key, numbers, wanted) in given.items():
        if len(numbers) not in (0, wanted) or any(number < 1 for number in numbers):
            raise ValueError(
                f"MODEL.VOVNET.{key} is {list(numbers)}; it wants {wanted} positive numbers, or none for {variant}'s"
            )
        if len(numbers):
            changes[field] = tuple(numbers)
    if node.LAYERS_PER_BLOCK:
        changes["layers"] = node.LAYERS_PER_BLOCK
    spec = replace(VARIANTS[variant], **changes)
    if node.OUT_CHANNELS != spec.out_channels[0]:
        logging.getLogger(__name__).info(
            "MODEL.VOVNET.OUT_CHANNELS is %d, the first stage of this body has %d channels; the key decides nothing",
            node.OUT_CHANNELS,
            spec.out_channels[0],
        )
    norm = build_norm(cfg, default="GN" if node.USE_GN else "FrozenBN")
    return VoVNet(spec, norm, freeze_at=cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT)


def build_vovnet_fpn(cfg, variant: str) -> nn.Sequential:
    return add_fpn(cfg, build_vovnet(cfg, variant), cfg.MODEL.VOVNET.BACKBONE_OUT_CHANNELS)


def build_vovnet_fpn_p3_to_p7(cfg, variant: str) -> nn.Sequential:
    return add_fpn_p3_to_p7(
        cfg,
        build_vovnet(cfg, variant),
        cfg.MODEL.VOVNET.BACKBONE_OUT_CHANNELS,
        p6_from_c5=cfg.MODEL.RETINANET.USE_C5,
    )


for _variant in VARIANTS:
    registry.BACKBONES.register(f"{_variant}-FPN", partial(build_vovnet_fpn, variant=_variant))
    registry.BACKBONES.register(f"{_variant}-FPN-RETINANET", partial(build_vovnet_fpn_p3_to_p7, variant=_variant))
