"""VoVNet (Lee et al., CVPRW 2019) and VoVNetV2 (Lee & Park, CVPR 2020): stages of One-Shot Aggregation (OSA) blocks.

The module names contain a slash. They are the original ones: the state_dict keys of the VoVNet forks and of
detectron2's VoVNetV2. All variants use them, whichever codebase they come from. vovnet_variants.py has the table.

Shapes: N images of H x W pixels, C channels.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.layers.pooling import global_average_pool
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.body import (
    build_norm,
    dilated_strides,
    freeze,
    hold_frozen_statistics,
    pick_features,
)
from maskrcnn_benchmark.modeling.backbone.fpn import register_forms
from maskrcnn_benchmark.modeling.backbone.vovnet_variants import VARIANTS, OSASpec

FEATURES = ("stem", "stage2", "stage3", "stage4", "stage5")


def conv_norm_relu(
    name, in_channels, out_channels, norm, kernel_size=3, stride=1, dilation=1, bias=False, deformable=None
):
    """Return convolution, norm and ReLU by their names in the nn.Sequential.

    Args:
        deformable: makes the 3x3 convolution, as DFConv2d does; None makes an ordinary one.
    """
    if deformable is not None:
        conv = deformable(in_channels, out_channels, stride=stride, dilation=dilation, bias=bias)
    else:
        padding = dilation * (kernel_size // 2)
        conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)
    return {f"{name}/conv": conv, f"{name}/norm": norm(out_channels), f"{name}/relu": nn.ReLU(inplace=True)}


def depthwise_conv_norm_relu(name, in_channels, out_channels, norm, stride=1, dilation=1, bias=False):
    """Return a 3x3 depthwise and a 1x1 convolution, norm and ReLU by name. The bias is that of the 1x1."""
    depthwise = Conv2d(in_channels, in_channels, 3, stride, dilation, dilation, groups=in_channels, bias=False)
    return {
        f"{name}/dw_conv3x3": depthwise,
        f"{name}/pw_conv1x1": Conv2d(in_channels, out_channels, 1, bias=bias),
        f"{name}/pw_norm": norm(out_channels),
        f"{name}/pw_relu": nn.ReLU(inplace=True),
    }


class CeilMaxPool(nn.Module):
    """3x3 max pooling with stride 2, without padding, in ceil mode: a side of n becomes ceil((n - 3) / 2) + 1.

    A side of 1 stays 1 (the formula gives 0 there), so that images of any size pass.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height == 1 or width == 1:
            x = F.pad(x, (0, int(width == 1), 0, int(height == 1)), mode="replicate")
        return F.max_pool2d(x, 3, 2, ceil_mode=True)


class ESE(nn.Module):
    """Effective squeeze-excitation (VoVNetV2, section 3.3): gate each channel by the means of all channels.

    Forward: (N, C, H, W) to the same shape and memory format.
    """

    def __init__(self, channels: int, hard_gate: bool = True):
        super().__init__()
        self.fc = Conv2d(channels, channels, 1)
        self.gate = F.hardsigmoid if hard_gate else torch.sigmoid

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc(global_average_pool(x)))


class OSABlock(nn.Module):
    """One-Shot Aggregation: concatenate the input and all outputs of a chain of 3x3 convolutions, then reduce by a 1x1.

    Args:
        name: prefix of the module names, such as OSA3_1 for the first block of stage 3.
        layers: number of 3x3 convolutions in the chain.
        depthwise: make them depthwise. A 1x1 convolution comes first if the input does not have conv_channels
            channels; the concatenation takes the input itself.
        dilation: dilation of the 3x3 convolutions.
        bias: bias of the 1x1 convolutions.
        ese: the last module, or None.
        identity: add the input to the result, without an activation after it; the channels must agree.
        deformable: see conv_norm_relu.

    Forward: (N, in_channels, H, W) to (N, out_channels, H, W).
    """

    def __init__(
        self,
        name,
        in_channels,
        conv_channels,
        out_channels,
        layers,
        norm,
        *,
        depthwise=False,
        dilation=1,
        bias=False,
        ese=None,
        identity=False,
        deformable=None,
    ):
        super().__init__()
        self.identity = identity
        chain = [in_channels, *[conv_channels] * layers]
        total = sum(chain)
        reduction = {}
        if depthwise:
            if in_channels != conv_channels:
                reduction = conv_norm_relu(f"{name}_reduction_0", in_channels, conv_channels, norm, 1, bias=bias)
            chain[0] = conv_channels
            step = partial(depthwise_conv_norm_relu, norm=norm, dilation=dilation, bias=bias)
        else:
            step = partial(conv_norm_relu, norm=norm, dilation=dilation, deformable=deformable)
        self.layers = nn.ModuleList(
            nn.Sequential(OrderedDict(step(f"{name}_{i}", chain[i], conv_channels))) for i in range(layers)
        )
        self.conv_reduction = nn.Sequential(OrderedDict(reduction))
        self.concat = nn.Sequential(
            OrderedDict(conv_norm_relu(f"{name}_concat", total, out_channels, norm, kernel_size=1, bias=bias))
        )
        self.ese = ese

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        last = self.conv_reduction(x)
        for layer in self.layers:
            last = layer(last)
            outputs.append(last)
        out = self.concat(torch.cat(outputs, dim=1))
        if self.ese is not None:
            out = self.ese(out)
        return out + x if self.identity else out


class VoVNet(nn.Module):
    """VoVNet body: a stem and four stages, named stem, stage2, ..., stage5, up to the last requested map.

    Args:
        spec: the variant's numbers.
        norm: channels -> norm.
        freeze_at: n freezes the stem (n >= 1) and the stages up to n (n >= 2), BatchNorm statistics included; 0 or
            less freezes nothing.
        out_features: names of the returned maps, finest first.
        output_stride: stages beyond it do not pool; their 3x3 convolutions are dilated instead.
        deformable: makes the 3x3 convolutions of deformable_stages, as DFConv2d does.
        deformable_stages: names of these stages.
        he_init: initialize convolutions by He's distribution; otherwise they start with torch's own weights, and the
            offsets of deformable ones at 0.

    Forward takes (N, 3, H, W) and returns the list of these maps, channels `out_channels`, strides `out_strides`.

    Raises:
        ValueError: out_features is empty, out of order or has an unknown name; output_stride is not supported; or
            convolutions are both depthwise and deformable.
    """

    def __init__(
        self,
        spec: OSASpec,
        norm: Callable[[int], nn.Module] = FrozenBatchNorm2d,
        freeze_at: int = 0,
        out_features: Sequence[str] = FEATURES[1:],
        output_stride: int = 32,
        deformable: Callable[..., nn.Module] = DFConv2d,
        deformable_stages: Collection[str] = (),
        he_init: bool = True,
    ):
        super().__init__()
        if spec.depthwise and deformable_stages:
            raise ValueError(
                "this VoVNet's 3x3 convolutions are depthwise and cannot be deformable; set "
                "MODEL.VOVNET.STAGE_WITH_DCN to False for all stages, or take a body without '-dw'"
            )
        self.out_features = pick_features(out_features, FEATURES)
        rules = spec.rules
        step = depthwise_conv_norm_relu if spec.depthwise else conv_norm_relu
        strides = rules.stem_strides
        bias = {"bias": rules.pointwise_bias} if spec.depthwise else {}
        self.stem = nn.Sequential(
            OrderedDict(
                conv_norm_relu("stem_1", 3, spec.stem[0], norm, stride=strides[0])
                | step("stem_2", spec.stem[0], spec.stem[1], norm, stride=strides[1], **bias)
                | step("stem_3", spec.stem[1], spec.stem[2], norm, stride=strides[2], **bias)
            )
        )
        channels, stride = [spec.stem[-1]], [prod(strides)]
        # A stem of stride 4 has already reduced the map to stage 2's size.
        parts = dilated_strides((stride[0], 4 // stride[0], 2, 2, 2), output_stride)[1:]
        for i, (stage_stride, dilation) in enumerate(parts[: FEATURES.index(self.out_features[-1])]):
            make_conv = deformable if FEATURES[i + 1] in deformable_stages else None
            stage = self._make_stage(i, channels[i], spec, norm, stage_stride > 1, dilation, make_conv)
            self.add_module(FEATURES[i + 1], stage)
            channels.append(spec.out_channels[i])
            stride.append(stride[i] * stage_stride)
        returned = [FEATURES.index(name) for name in self.out_features]
        self.out_channels = tuple(channels[i] for i in returned)
        self.out_strides = tuple(stride[i] for i in returned)
        self._initialize(rules.init_mode if he_init else None)
        freeze([part for _, part in self._parts()][: max(freeze_at, 0)])

    def _initialize(self, mode: str | None):
        """Initialize convolutions by He's distribution; None keeps torch's, with offset weights set to 0."""
        offsets = {module.offset for module in self.modules() if isinstance(module, DFConv2d)}
        for module in self.modules():
            if module in offsets:
                if mode is None:
                    nn.init.zeros_(module.weight)
            elif isinstance(module, nn.Conv2d) and mode is not None:
                nn.init.kaiming_normal_(module.weight, mode=mode)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @staticmethod
    def _make_stage(i, in_channels, spec, norm, pools, dilation, deformable):
        rules = spec.rules
        modules = OrderedDict()
        if pools:
            modules["Pooling"] = nn.MaxPool2d(3, 2, 1) if rules.padded_pooling else CeilMaxPool()
        out_channels, blocks = spec.out_channels[i], spec.blocks[i]
        for block in range(1, blocks + 1):
            name = f"OSA{i + 2}_{block}"
            has_ese = {"none": False, "every": True, "last": block == blocks}[rules.ese]
            modules[name] = OSABlock(
                name,
                in_channels,
                spec.conv_channels[i],
                out_channels,
                spec.layers,
                norm,
                depthwise=spec.depthwise,
                dilation=dilation,
                bias=rules.pointwise_bias,
                ese=ESE(out_channels, rules.hard_gate) if has_ese else None,
                identity={"none": False, "later": block > 1, "equal": in_channels == out_channels}[rules.shortcut],
                deformable=deformable,
            )
            in_channels = out_channels
        return nn.Sequential(modules)

    def _parts(self):
        return [(name, part) for name, part in self.named_children() if name in FEATURES]

    def train(self, mode: bool = True):
        super().train(mode)
        hold_frozen_statistics(self)
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for name, part in self._parts():
            x = part(x)
            if name in self.out_features:
                maps.append(x)
        return maps


DEFAULT_OUT_CHANNELS = 256  # of MODEL.VOVNET.OUT_CHANNELS: at this value the user most likely did not set it


def build_vovnet(cfg, variant: str) -> VoVNet:
    """Build the body that MODEL.BACKBONE.CONV_BODY names, or `variant` if that key names no VoVNet.

    Raises:
        ValueError: a list in MODEL.VOVNET does not have one number for each stage (or stem convolution), or
            convolutions are both depthwise and deformable.
    """
    node = cfg.MODEL.VOVNET
    asked = cfg.MODEL.BACKBONE.CONV_BODY.split("-FPN")[0]
    variant = asked if asked in VARIANTS else variant
    given = {
        "stem": ("STEM_CHANNELS", node.STEM_CHANNELS, 3),
        "conv_channels": ("STAGE_CONV_CHANNELS", node.STAGE_CONV_CHANNELS, 4),
        "out_channels": ("STAGE_OUT_CHANNELS", node.STAGE_OUT_CHANNELS, 4),
        "blocks": ("BLOCKS_PER_STAGE", node.BLOCKS_PER_STAGE, 4),
    }
    changes = {}
    for field, (key, numbers, expected) in given.items():
        if len(numbers) not in (0, expected) or any(number < 1 for number in numbers):
            raise ValueError(f"MODEL.VOVNET.{key} is {list(numbers)}; expected {expected} positive numbers, or []")
        if len(numbers):
            changes[field] = tuple(numbers)
    if node.LAYERS_PER_BLOCK:
        changes["layers"] = node.LAYERS_PER_BLOCK
    spec = replace(VARIANTS[variant], **changes)
    if node.OUT_CHANNELS not in (spec.out_channels[0], DEFAULT_OUT_CHANNELS):
        logging.getLogger(__name__).info(
            "MODEL.VOVNET.OUT_CHANNELS is %d, but the first stage of this body has %d channels; the key has no effect",
            node.OUT_CHANNELS,
            spec.out_channels[0],
        )
    norm = build_norm(cfg, default="GN" if node.USE_GN else "FrozenBN")
    return VoVNet(
        spec,
        norm,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT,
        output_stride=cfg.MODEL.BACKBONE.OUTPUT_STRIDE,
        deformable=partial(
            DFConv2d, with_modulated_dcn=node.WITH_MODULATED_DCN, deformable_groups=node.DEFORMABLE_GROUPS
        ),
        deformable_stages=[
            name for name, is_deformable in zip(FEATURES[1:], node.STAGE_WITH_DCN, strict=True) if is_deformable
        ],
        he_init=get_convention(cfg.MODEL.CONVENTION).vovnet_he_init,
    )


for _name, _spec in VARIANTS.items():
    registry.BODIES.register(_name, partial(VoVNet, _spec))
    register_forms(_name, partial(build_vovnet, variant=_name), lambda cfg: cfg.MODEL.VOVNET.BACKBONE_OUT_CHANNELS)
