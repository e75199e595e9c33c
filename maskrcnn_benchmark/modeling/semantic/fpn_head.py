"""Semantic head on a feature pyramid (Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019, section 3).

Shapes: N images, L FPN maps, D channels of each, H_l x W_l their sizes, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.norm import get_norm
from maskrcnn_benchmark.modeling.make_layers import group_norm_options
from maskrcnn_benchmark.modeling.semantic.maps import upsample


class ConvNormReLU(Conv2d):
    """3x3 convolution, norm and ReLU. The state_dict keys are those of a convolution with a child module `norm`.

    Args:
        norm: channels -> norm; None uses a bias instead.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Callable[[int], nn.Module] | None):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=norm is None)
        self.norm = nn.Identity() if norm is None else norm(out_channels)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(super().forward(x)), inplace=True)


class SemSegFPNHead(nn.Module):
    """Resize every map to the finest one by alternating convolutions and upsampling, and add them.

    Args:
        in_channels: D.
        num_classes: C.
        conv_channels: channels of the convolutions.
        levels: L: p2 with stride 4, p3 with stride 8, ... p2 has one convolution, p3 one with an upsampling by two
            after it, p4 two of these pairs, and so on.
        norm: channels -> norm of the convolutions; None for none.

    Forward takes FPN's maps, of which it uses the first L, and returns logits (N, C, H_2, W_2). A map whose size still
    differs from the finest one's after upsampling is resized to it.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        conv_channels: int = 128,
        levels: int = 4,
        norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.levels = levels
        for level in range(levels):
            steps: list[nn.Module] = []
            for k in range(max(level, 1)):
                steps.append(ConvNormReLU(conv_channels if k else in_channels, conv_channels, norm))
                if level:
                    steps.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.add_module(f"p{level + 2}", nn.Sequential(*steps))
        self.predictor = Conv2d(conv_channels, num_classes, 1)
        nn.init.kaiming_normal_(self.predictor.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.predictor.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        total = self.p2(features[0])
        for level in range(1, self.levels):
            x = getattr(self, f"p{level + 2}")(features[level])
            total = total + upsample(x, total.shape[-2:])
        return self.predictor(total)


def build_sem_seg_fpn_head(cfg, in_channels: int) -> SemSegFPNHead:
    """Build the head of MODEL.SEM_SEG_HEAD; in_channels are FPN's."""
    node = cfg.MODEL.SEM_SEG_HEAD

    def norm(channels: int) -> nn.Module:
        return get_norm(node.NORM, channels, **(group_norm_options(cfg) if node.NORM == "GN" else {}))

    return SemSegFPNHead(in_channels, node.NUM_CLASSES, node.CONVS_DIM, norm=norm if node.NORM else None)
