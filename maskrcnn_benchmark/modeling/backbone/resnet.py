"""ResNet (He et al., CVPR 2016) and ResNeXt (Xie et al., CVPR 2017) with bottleneck blocks.

Shapes: N images of H x W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.body import (
    as_backbone,
    build_norm,
    dilated_strides,
    freeze,
    hold_frozen_statistics,
    pick_features,
)
from maskrcnn_benchmark.modeling.backbone.fpn import register_forms

# blocks of layer1 to layer4
VARIANTS = {"R-50": (3, 4, 6, 3), "R-101": (3, 4, 23, 3), "R-152": (3, 8, 36, 3)}

# names of the maps of layer1 to layer4, for `out_features`
FEATURES = ("res2", "res3", "res4", "res5")

# The forks' names of stems and blocks. They differ only in their norm.
STEMS = {"StemWithFixedBatchNorm": "FrozenBN", "StemWithGN": "GN"}
BLOCKS = {"BottleneckWithFixedBatchNorm": "FrozenBN", "BottleneckWithGN": "GN"}


class Stem(nn.Module):
    """7x7 convolution and 3x3 max pooling, both of stride 2: (N, 3, H, W) to (N, channels, H / 4, W / 4)."""

    norm_after = {"conv1": "bn1"}

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1 = Conv2d(3, channels, 7, 2, 3, bias=False)
        self.bn1 = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu_(self.bn1(self.conv1(x))), 3, 2, 1)


def conv3x3(in_channels: int, out_channels: int, *, stride: int, dilation: int, groups: int) -> nn.Module:
    """Make the standard middle convolution of a block. DFConv2d takes the same arguments."""
    return Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: (N, in_channels, H, W) to (N, out_channels, H / s, W / s).

    Args:
        bottleneck_channels: channels of the first two convolutions.
        stride: s.
        dilation: dilation of the 3x3 convolution.
        num_groups: groups of the 3x3 convolution; more than one makes it a ResNeXt.
        stride_in_1x1: put the stride in the first convolution (the MSRA weights) instead of the 3x3 (torchvision's
            and ResNeXt's weights).
        norm: channels -> norm.
        conv: makes the 3x3 convolution; takes the arguments of `conv3x3`.
    """

    norm_after = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"}

    def __init__(
        self,
        in_channels,
        bottleneck_channels,
        out_channels,
        stride,
        dilation,
        num_groups,
        stride_in_1x1,
        norm,
        conv=conv3x3,
    ):
        super().__init__()
        self.downsample = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                Conv2d(in_channels, out_channels, 1, stride, bias=False), norm(out_channels)
            )
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = Conv2d(in_channels, bottleneck_channels, 1, stride_1x1, bias=False)
        self.bn1 = norm(bottleneck_channels)
        self.conv2 = conv(
            bottleneck_channels, bottleneck_channels, stride=stride_3x3, dilation=dilation, groups=num_groups
        )
        self.bn2 = norm(bottleneck_channels)
        self.conv3 = Conv2d(bottleneck_channels, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut
        return F.relu_(x)


def make_stage(
    in_channels: int,
    bottleneck_channels: int,
    out_channels: int,
    blocks: int,
    norm: Callable[[int], nn.Module],
    *,
    stride: int,
    dilation: int = 1,
    first_dilation: int | None = None,
    num_groups: int = 1,
    stride_in_1x1: bool = True,
    conv: Callable[..., nn.Module] = conv3x3,
) -> nn.Sequential:
    """Make a sequence of bottleneck blocks, the first of which has the stride.

    A dilation of more than 1 replaces the stride: the map keeps its size. `first_dilation`, if given, is the dilation
    of the first block. The standard convolutions are initialized kaiming uniform with a = 1.
    """
    stage = nn.Sequential()
    for block in range(blocks):
        block_stride = stride if block == 0 and dilation == 1 else 1
        block_dilation = first_dilation if block == 0 and first_dilation else dilation
        stage.append(
            Bottleneck(
                in_channels,
                bottleneck_channels,
                out_channels,
                block_stride,
                block_dilation,
                num_groups,
                stride_in_1x1,
                norm,
                conv,
            )
        )
        in_channels = out_channels
    _initialize(stage)
    return stage


def _initialize(module):
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_uniform_(part.weight, a=1)


class ResNet(nn.Module):
    """ResNet body: stem, layer1, ..., up to the last requested map.

    Args:
        blocks: bottleneck blocks of layer1 to layer4.
        outputs: numbers of the layers whose maps are returned, ascending; (1, 2, 3, 4) is C2 to C5.
        stem_channels: channels of the stem.
        res2_channels: channels of layer1's map; each layer doubles them.
        num_groups, width_per_group: their product is layer1's bottleneck width; each layer doubles it.
        stride_in_1x1: see Bottleneck.
        res5_dilation: dilation of all blocks of layer4, as in the forks; more than 1 keeps the size of its map.
        output_stride: layers beyond it are dilated instead of strided. Every convolution reads the same points as
            with the stride, so the 3x3 that had the stride keeps the dilation of the layer before. It cannot be
            combined with res5_dilation.
        norm, stem_norm: channels -> norm; stem_norm None means norm.
        deformable_layers: numbers (1 to 4) of the layers whose 3x3 convolutions are deformable.
        modulated, deformable_groups: see DFConv2d.
        freeze_at: n freezes the stem (n >= 1) and the layers below n (n >= 2), BatchNorm statistics included; 0 or
            less freezes nothing.

    Forward takes (N, 3, H, W) and returns a list of maps. Their names are `out_features`, their channels
    `out_channels`, their strides `out_strides`.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        outputs: tuple[int, ...] = (1, 2, 3, 4),
        *,
        stem_channels: int = 64,
        res2_channels: int = 256,
        num_groups: int = 1,
        width_per_group: int = 64,
        stride_in_1x1: bool = True,
        res5_dilation: int = 1,
        output_stride: int = 32,
        norm: Callable[[int], nn.Module] = FrozenBatchNorm2d,
        stem_norm: Callable[[int], nn.Module] | None = None,
        deformable_layers: Collection[int] = (),
        modulated: bool = False,
        deformable_groups: int = 1,
        freeze_at: int = 0,
    ):
        super().__init__()
        if res5_dilation > 1 and output_stride < 32:
            raise ValueError(
                f"res5_dilation is {res5_dilation} and output_stride is {output_stride}; set only one of them: leave "
                "MODEL.RESNETS.RES5_DILATION 1 or MODEL.BACKBONE.OUTPUT_STRIDE 32"
            )
        self.outputs = outputs
        self.out_features = tuple(FEATURES[i - 1] for i in outputs)
        self.stem = Stem(stem_channels, stem_norm or norm)
        _initialize(self.stem)
        deformable = partial(DFConv2d, with_modulated_dcn=modulated, deformable_groups=deformable_groups)
        in_channels, stride = stem_channels, 4
        channels, strides = {}, {}
        parts = dilated_strides((4, 1, 2, 2, 2), output_stride)
        for i in range(1, max(outputs) + 1):
            factor = 2 ** (i - 1)
            first_stride, dilation = parts[i]
            first_dilation = dilation if stride_in_1x1 else parts[i - 1][1]
            if i == 4 and res5_dilation > 1:
                first_stride, dilation, first_dilation = 1, res5_dilation, res5_dilation
            stage = make_stage(
                in_channels,
                num_groups * width_per_group * factor,
                res2_channels * factor,
                blocks[i - 1],
                norm,
                stride=first_stride,
                dilation=dilation,
                first_dilation=first_dilation,
                num_groups=num_groups,
                stride_in_1x1=stride_in_1x1,
                conv=deformable if i in deformable_layers else conv3x3,
            )
            self.add_module(f"layer{i}", stage)
            in_channels, stride = res2_channels * factor, stride * first_stride
            channels[i], strides[i] = in_channels, stride
        self.out_channels = tuple(channels[i] for i in outputs)
        self.out_strides = tuple(strides[i] for i in outputs)
        freeze([self.stem, *self._layers()][: max(freeze_at, 0)])

    def _layers(self):
        return [getattr(self, f"layer{i}") for i in range(1, max(self.outputs) + 1)]

    def train(self, mode: bool = True):
        super().train(mode)
        hold_frozen_statistics(self)
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for i, layer in enumerate(self._layers(), 1):
            x = layer(x)
            if i in self.outputs:
                maps.append(x)
        return maps


def build_resnet(cfg, variant: str, outputs: tuple[int, ...]) -> ResNet:
    """Build the body that MODEL.BACKBONE.CONV_BODY names, or `variant` if that key names no ResNet.

    Raises:
        ValueError: STEM_FUNC or TRANS_FUNC is unknown.
    """
    node = cfg.MODEL.RESNETS
    for key, value, known in (("STEM_FUNC", node.STEM_FUNC, STEMS), ("TRANS_FUNC", node.TRANS_FUNC, BLOCKS)):
        if value not in known:
            raise ValueError(f"MODEL.RESNETS.{key} is {value!r}; expected one of {', '.join(known)}")
    asked = "-".join(cfg.MODEL.BACKBONE.CONV_BODY.split("-")[:2])
    return ResNet(
        VARIANTS.get(asked, VARIANTS[variant]),
        outputs,
        stem_channels=node.STEM_OUT_CHANNELS,
        res2_channels=node.RES2_OUT_CHANNELS,
        num_groups=node.NUM_GROUPS,
        width_per_group=node.WIDTH_PER_GROUP,
        stride_in_1x1=node.STRIDE_IN_1X1,
        res5_dilation=node.RES5_DILATION,
        output_stride=cfg.MODEL.BACKBONE.OUTPUT_STRIDE,
        norm=build_norm(cfg, default=BLOCKS[node.TRANS_FUNC]),
        stem_norm=build_norm(cfg, default=STEMS[node.STEM_FUNC]),
        deformable_layers=[i for i, deformable in enumerate(node.STAGE_WITH_DCN, 1) if deformable],
        modulated=node.WITH_MODULATED_DCN,
        deformable_groups=node.DEFORMABLE_GROUPS,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT,
    )


def build_resnet_alone(variant: str, out_features: Sequence[str] = FEATURES, **options) -> ResNet:
    """Build a ResNet for `build_body`: outputs by name, and ResNet's other arguments."""
    return ResNet(
        VARIANTS[variant], tuple(FEATURES.index(name) + 1 for name in pick_features(out_features, FEATURES)), **options
    )


def build_resnet_last_map(cfg, variant: str, form: str) -> nn.Sequential:
    """Build C4 or C5 alone: the one that MODEL.BACKBONE.CONV_BODY names, or `form` if it names neither."""
    asked = cfg.MODEL.BACKBONE.CONV_BODY.rpartition("-")[2]
    form = asked if asked in ("C4", "C5") else form
    body = build_resnet(cfg, variant, outputs=(3,) if form == "C4" else (4,))
    return as_backbone(body)


for _variant in VARIANTS:
    registry.BODIES.register(_variant, partial(build_resnet_alone, _variant))
    register_forms(
        _variant,
        partial(build_resnet, variant=_variant, outputs=(1, 2, 3, 4)),
        lambda cfg: cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS,
        lite=False,
    )
    for _form in ("C4", "C5"):
        registry.BACKBONES.register(f"{_variant}-{_form}", partial(build_resnet_last_map, variant=_variant, form=_form))
