"""The first stage of a detector, chosen by the config."""

from __future__ import annotations

from maskrcnn_benchmark.modeling.rpn.fcos.fcos import build_fcos


def build_rpn(cfg, in_channels):
    """The head that works on the backbone's maps of in_channels channels.

    Raises:
        ValueError: the config asks for a head that is not available.
    """
    if cfg.MODEL.FCOS_ON:
        return build_fcos(cfg, in_channels)
    raise ValueError(
        "this config has MODEL.FCOS_ON False; of the first stages only FCOS is available so far, RPN and RetinaNet "
        "are not. (The FCOS forks had FCOS_ON True by default: set it if the config comes from there.)"
    )
