"""The second stage of a detector, chosen by the config."""

from __future__ import annotations


def build_roi_heads(cfg, in_channels):
    """ROI heads of a config, or [] for a model of one stage.

    Raises:
        ValueError: the config asks for ROI heads, which are not available.
    """
    if cfg.MODEL.RPN_ONLY or cfg.MODEL.RETINANET_ON:
        return []
    raise ValueError(
        "this config has MODEL.RPN_ONLY False, but ROI heads are not available yet. For FCOS set MODEL.RPN_ONLY True."
    )
