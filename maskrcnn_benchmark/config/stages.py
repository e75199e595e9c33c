"""Determine the stages of a config's detector.

MODEL.FCOS_ON with RPN_ONLY False puts FCOS in RPN's place. MODEL.FCOS_MASK makes FCOS the box stage itself: its
detections go to the mask and keypoint heads, as in CenterMask, whatever RPN_ONLY says.
"""

from __future__ import annotations


def has_box_head(model) -> bool:
    """Return whether a second stage classifies regions and refines their boxes. `model` is cfg.MODEL."""
    return not (model.RPN_ONLY or model.RETINANET_ON or model.FCOS_MASK)


def has_roi_heads(model) -> bool:
    """Return whether any head reads regions. `model` is cfg.MODEL."""
    return has_box_head(model) or (model.FCOS_MASK and (model.MASK_ON or model.KEYPOINT_ON))


def classes_of_regions(model) -> tuple[str, int]:
    """Return (key below MODEL, value) of the number of classes of the ROI heads, background included."""
    if model.FCOS_MASK:
        return "FCOS.NUM_CLASSES", model.FCOS.NUM_CLASSES
    return "ROI_BOX_HEAD.NUM_CLASSES", model.ROI_BOX_HEAD.NUM_CLASSES
