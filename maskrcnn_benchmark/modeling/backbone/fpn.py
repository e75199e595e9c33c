"""Feature pyramid network (Lin et al., CVPR 2017) and the levels above it.

Shapes: N images, C_k channels of the body's k-th map, D channels of every FPN map, H_k x W_k their sizes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone.body import as_backbone
from maskrcnn_benchmark.modeling.make_layers import conv_with_kaiming_uniform, group_norm_options

# Of the "FPNLite" forms. The other widths of a detector follow from the backbone's out_channels.
FPN_LITE_CHANNELS = 128


class FPN(nn.Module):
    """Top-down path with lateral 1x1 and output 3x3 convolutions.

    Args:
        in_channels_list: C_k of the body's maps, finest first; 0 leaves that map out.
        out_channels: D.
        conv_block: factory (in_channels, out_channels, kernel_size, stride) of convolutions.
        top_blocks: makes further, coarser maps from (the body's last map, FPN's last map); None for no such maps.

    The convolutions are numbered by the position of their map in the list, from 1: fpn_inner1, fpn_layer1, ...

    Forward takes the body's maps (N, C_k, H_k, W_k). It returns a list of maps (N, D, H_k, W_k), finest first, then
    those of top_blocks. A coarser map is resized to the finer one, whatever their ratio.
    """

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        conv_block: Callable[..., nn.Module],
        top_blocks: nn.Module | None = None,
    ):
        super().__init__()
        self.levels = [k for k, channels in enumerate(in_channels_list, 1) if channels]
        for k in self.levels:
            self.add_module(f"fpn_inner{k}", conv_block(in_channels_list[k - 1], out_channels, 1))
            self.add_module(f"fpn_layer{k}", conv_block(out_channels, out_channels, 3, 1))
        self.top_blocks = top_blocks

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        inner, results = None, []
        for k in reversed(self.levels):
            lateral = getattr(self, f"fpn_inner{k}")(maps[k - 1])
            if inner is not None:
                lateral = lateral + F.interpolate(inner, lateral.shape[-2:], mode="nearest")
            inner = lateral
            results.insert(0, getattr(self, f"fpn_layer{k}")(inner))
        if self.top_blocks is not None:
            results.extend(self.top_blocks(maps[-1], results[-1]))
        return results


class LastLevelMaxPool(nn.Module):
    """Make P6 for RPN: every second point of P5. Forward takes (c5, p5) and returns [p6]."""

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        return [F.max_pool2d(p5, 1, 2)]


class LastLevelP6P7(nn.Module):
    """Make P6 and P7 for RetinaNet and FCOS: 3x3 convolutions with stride 2.

    Args:
        in_channels: channels of the map that P6 is computed from. If they equal out_channels, this is P5, otherwise C5.
            This is the forks' rule: a body whose C5 has out_channels channels always gets its P6 from P5.

    Forward takes (c5, p5) and returns [p6, p7].
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.p6 = Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = Conv2d(out_channels, out_channels, 3, 2, 1)
        for conv in (self.p6, self.p7):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)
        self.use_P5 = in_channels == out_channels

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        p6 = _halve(self.p6, p5 if self.use_P5 else c5)
        return [p6, _halve(self.p7, F.relu(p6))]


def _halve(conv, x):
    if x.shape[-1] == 1:
        # In bfloat16 on the CPU the weight gradient of this convolution reads uninitialized memory if the map is one
        # point wide (seen with torch 2.15). Padding a column of zeros explicitly avoids this and changes nothing else.
        x = F.pad(x, (0, 1))
    return conv(x)


def add_fpn(cfg, body: nn.Module, out_channels: int) -> nn.Sequential:
    """Add an FPN with P2 to P5 from a body's four maps, and P6 by pooling."""
    return _join(cfg, body, body.out_channels, out_channels, LastLevelMaxPool())


def add_fpn_p3_to_p7(cfg, body: nn.Module, out_channels: int, *, p6_from_c5: bool) -> nn.Sequential:
    """Add an FPN with P3 to P5 from the last three of a body's four maps, and P6 and P7 by convolutions."""
    top_blocks = LastLevelP6P7(body.out_channels[-1] if p6_from_c5 else out_channels, out_channels)
    return _join(cfg, body, (0, *body.out_channels[1:]), out_channels, top_blocks)


def add_fpn_p2_to_p7(cfg, body: nn.Module, out_channels: int) -> nn.Sequential:
    """Add an FPN with P2 to P5 from a body's four maps, and P6 and P7 by convolutions from P5."""
    return _join(cfg, body, body.out_channels, out_channels, LastLevelP6P7(out_channels, out_channels))


def _join(cfg, body, in_channels_list, out_channels, top_blocks):
    if tuple(body.out_strides) != (4, 8, 16, 32):
        raise ValueError(
            f"FPN requires maps of strides (4, 8, 16, 32), but the body's are {tuple(body.out_strides)}; use a dilated "
            "body (MODEL.BACKBONE.OUTPUT_STRIDE, MODEL.RESNETS.RES5_DILATION) without FPN, or with the C5 form"
        )
    conv_block = conv_with_kaiming_uniform(cfg.MODEL.FPN.USE_GN, cfg.MODEL.FPN.USE_RELU, **group_norm_options(cfg))
    fpn = FPN(in_channels_list, out_channels, conv_block, top_blocks)
    backbone = nn.Sequential(OrderedDict(body=body, fpn=fpn))
    backbone.out_channels = out_channels
    return backbone


def register_forms(
    name: str,
    build_body: Callable[..., nn.Module],
    fpn_channels: Callable[..., int],
    *,
    lite: bool = True,
    p6_from_p5: bool = False,
) -> None:
    """Register a body in all forms of the second table in backbone.py, except -C4 and -C5.

    Args:
        build_body: cfg -> body with maps of four strides.
        fpn_channels: cfg -> channels of every form with an FPN but -FPNLite.
        lite: False leaves out -FPNLite.
        p6_from_p5: P6 of -FPN-RETINANET comes from P5 whatever MODEL.RETINANET.USE_C5 says.
    """

    def alone(cfg):
        return as_backbone(build_body(cfg))

    def fpn(cfg):
        return add_fpn(cfg, build_body(cfg), fpn_channels(cfg))

    def fpn_lite(cfg):
        return add_fpn(cfg, build_body(cfg), FPN_LITE_CHANNELS)

    def fpn_p3_to_p7(cfg):
        p6_from_c5 = cfg.MODEL.RETINANET.USE_C5 and not p6_from_p5
        return add_fpn_p3_to_p7(cfg, build_body(cfg), fpn_channels(cfg), p6_from_c5=p6_from_c5)

    def fpn_p2_to_p7(cfg):
        return add_fpn_p2_to_p7(cfg, build_body(cfg), fpn_channels(cfg))

    forms = {"": alone, "-FPN": fpn, "-FPN-RETINANET": fpn_p3_to_p7, "-FPN-P2P7": fpn_p2_to_p7}
    for form, build in {**forms, **({"-FPNLite": fpn_lite} if lite else {})}.items():
        registry.BACKBONES.register(f"{name}{form}", build)
