"""Settings that differ between the box heads of a cascade's stages.

A detector without a cascade has one stage, of MODEL.ROI_HEADS; a cascade has one per entry of MODEL.CASCADE.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Settings of one box head.

    Args:
        fg_iou, bg_iou: a region is foreground at an IoU of at least fg_iou, and background below bg_iou.
        box_weights: weights of the box coder.
        class_agnostic: all classes share one box code.
    """

    fg_iou: float
    bg_iou: float
    box_weights: tuple[float, float, float, float]
    class_agnostic: bool


def single_stage(cfg) -> Stage:
    """Return the stage of a detector without a cascade."""
    node = cfg.MODEL.ROI_HEADS
    weights = tuple(node.BBOX_REG_WEIGHTS)
    return Stage(node.FG_IOU_THRESHOLD, node.BG_IOU_THRESHOLD, weights, cfg.MODEL.CLS_AGNOSTIC_BBOX_REG)


def cascade_stages(cfg) -> list[Stage]:
    """Return the stages of MODEL.CASCADE.

    Raises:
        ValueError: its lists have different lengths, or MODEL.KEYPOINT_ON is True.
    """
    node = cfg.MODEL.CASCADE
    lengths = [len(node.IOU_THRESHOLDS), len(node.BBOX_REG_WEIGHTS), len(node.LOSS_WEIGHTS)]
    if len(set(lengths)) > 1 or lengths[0] == 0:
        raise ValueError(
            "MODEL.CASCADE requires IOU_THRESHOLDS, BBOX_REG_WEIGHTS and LOSS_WEIGHTS with one entry per stage, got "
            f"{lengths} entries; make them equally long"
        )
    if cfg.MODEL.KEYPOINT_ON:
        raise ValueError(
            "MODEL.CASCADE_ON and MODEL.KEYPOINT_ON are True, but a cascade has no keypoint head; set one to False"
        )
    pairs = zip(node.IOU_THRESHOLDS, node.BBOX_REG_WEIGHTS, strict=True)
    return [Stage(threshold, threshold, tuple(weights), class_agnostic=True) for threshold, weights in pairs]
