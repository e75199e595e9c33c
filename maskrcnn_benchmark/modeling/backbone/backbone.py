"""Build backbones from a config, or bodies from a name. Importing this file fills the registries.

MODEL.BACKBONE.CONV_BODY names a body and a form:

| body | network |
|---|---|
| V-27, V-39, V-57, V-69, V-75, V-93 | VoVNet, as in the forks of maskrcnn-benchmark and FCOS |
| V2-19-slim-dw, V2-19-slim, V2-19-dw, V2-19, V2-39, V2-57, V2-99 | VoVNetV2 with eSE in every block, as in detectron2 |
| V2-19-slim-dw1-mmdet, V2-19-slim-dw-mmdet, V2-19-slim-mmdet, V2-19-mmdet, V2-39-mmdet, V2-57-mmdet, V2-99-mmdet | mmdetection's VoVNetV2: another stem, another pooling, another gate |
| ese_vovnet19b_slim_dw, ese_vovnet19b_slim, ese_vovnet19b_dw, ese_vovnet39b, ese_vovnet57b, ese_vovnet99b | timm's VoVNetV2: eSE in the last block of a stage only |
| vovnet39a, vovnet57a | timm's VoVNet: no shortcuts |
| R-50, R-101, R-152 | ResNet, or ResNeXt with MODEL.RESNETS |
| MNV2 | MobileNetV2 |
| D-121, D-161, D-169, D-201 | DenseNet |

| form | maps | channels |
|---|---|---|
| the name alone | the body's four, dilated beyond MODEL.BACKBONE.OUTPUT_STRIDE | the body's own |
| -FPN | P2 to P6, P6 by pooling | MODEL.VOVNET.BACKBONE_OUT_CHANNELS; for R, D and MNV2 MODEL.RESNETS.BACKBONE_OUT_CHANNELS |
| -FPNLite (not for R) | P2 to P6, P6 by pooling | 128 |
| -FPN-RETINANET | P3 to P7, P6 and P7 by convolutions | as -FPN |
| -FPN-P2P7 | P2 to P7, P6 and P7 by convolutions, for a semantic head beside FCOS | as -FPN |
| -C4, -C5 (for R) | C4 or C5 alone | its own |

The heads take their input channels from the backbone. With -FPNLite the RPN's convolution has 128 channels, the box
head's first layer has 128 * 7 * 7 inputs, and the mask head's first convolution has 128.
"""  # noqa: E501  (rows of tables)

from __future__ import annotations

from functools import partial

from torch import nn

from maskrcnn_benchmark.layers.norm import get_norm
from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.backbone import densenet, mobilenet, resnet, vovnet  # noqa: F401  (they fill the registries)


def build_backbone(cfg, **options) -> nn.Module:
    """Build the backbone that MODEL.BACKBONE.CONV_BODY names; or a body alone, given its name instead of a cfg.

    Args:
        cfg: a config, or a name of the first table above.
        options: with a name only, see `build_body`.

    Returns:
        For a config, an nn.Sequential of `body` and, in the FPN forms, `fpn`. It takes (N, 3, H, W) of any H and W.
        It returns a list of maps (N, `backbone.out_channels`, H_k, W_k), finest first.

    Raises:
        KeyError: the name is unknown.
    """
    if isinstance(cfg, str):
        return build_body(cfg, **options)
    return registry.BACKBONES[cfg.MODEL.BACKBONE.CONV_BODY](cfg, **options)


def build_body(name: str, *, norm="FrozenBN", norm_eps: float = 1e-5, **options) -> nn.Module:
    """Build a body alone, as a feature extractor for models of other projects.

    >>> body = build_backbone("V2-99", out_features=("stage3", "stage4", "stage5"), norm="BN")
    >>> body.out_features, body.out_channels, body.out_strides
    (('stage3', 'stage4', 'stage5'), (512, 768, 1024), (8, 16, 32))
    >>> [tuple(m.shape) for m in body(torch.rand(1, 3, 320, 800))]
    [(1, 512, 40, 100), (1, 768, 20, 50), (1, 1024, 10, 25)]

    Args:
        name: a name of the first table above.
        norm: "FrozenBN", "BN", "SyncBN" or "GN" (32 groups), see `get_norm`; or a function channels -> norm.
        norm_eps: added to the variance if `norm` is a name. The forks of maskrcnn-benchmark have 0 in FrozenBN.
        options: keyword arguments of the body:
            out_features: names of the maps, finest first: "stem", "stage2", ..., "stage5" of a VoVNet, "res2", ...,
            "res5" of the others. Default: the four of strides 4 to 32. Layers after the last one are not built.
            freeze_at: as MODEL.BACKBONE.FREEZE_CONV_BODY_AT. Default 0, which freezes nothing.
            output_stride: as MODEL.BACKBONE.OUTPUT_STRIDE. Default 32; 16 and 8 dilate instead of striding.

    Returns:
        A module that takes (N, 3, H, W) of any H and W and returns a list of maps (N, C_k, H_k, W_k). It has
        `out_features`, `out_channels` (C_k) and `out_strides`, a tuple each. The images must be normalized as the
        weights require.

    Raises:
        KeyError: the body's name is unknown.
        ValueError: the norm or a map's name is unknown.
    """
    if isinstance(norm, str):
        norm = partial(get_norm, norm, eps=norm_eps)
    return registry.BODIES[name](norm=norm, **options)
