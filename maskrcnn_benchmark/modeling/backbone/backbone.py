"""From a config to a backbone. Every family's file puts its builders into the registry when it is imported."""

from __future__ import annotations

from torch import nn

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone import mobilenet, resnet, vovnet  # noqa: F401  (they fill the registry)


def build_backbone(cfg) -> nn.Sequential:
    """The backbone that MODEL.BACKBONE.CONV_BODY names.

    Returns an nn.Sequential of `body` and, in the FPN forms, `fpn`. It takes (N, 3, H, W), H and W any size, and
    returns a list of maps (N, `backbone.out_channels`, H_k, W_k), finest first.

    Raises:
        KeyError: there is no backbone of that name.
    """
    return registry.BACKBONES[cfg.MODEL.BACKBONE.CONV_BODY](cfg)
