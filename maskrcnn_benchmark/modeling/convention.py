"""The numeric conventions in which the systems we succeed differ, as plain numbers and flags.

`MODEL.CONVENTION` names one. Builders hand its fields to the components; no component knows the name. What a system
has as a config key (thresholds, numbers of boxes, pixel means, anchors outside the picture) is a key here, too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Convention:
    """Numbers that decide whether a checkpoint gives the result it was published with.

    Boxes:
        box_offset: what a side adds to its coordinate difference; 1 for inclusive pixel boxes. It enters areas, IoU,
            NMS, clipping, box coding, mirroring and the sides of anchors.

    Backbone:
        size_divisibility: pictures that the model pads itself are padded to a multiple of this; 0 to the largest.
        frozen_norm_eps: what frozen batch norm adds to its variances.

    Anchors and proposals:
        anchor_rounding: what of a cell's anchors is rounded to whole pixels: "sides", the sides of the anchor as
            large as the stride, before it is scaled; "corners" at the end; or "none".
        anchor_at_cell_center: anchors are centred on the middle of their cell, (stride - box_offset) / 2 from its
            corner, instead of on the corner.
        rank_proposals_by_logit: proposals are ranked by their logits, not by probabilities, many of which are equal
            in float32 where logits are large.
        rpn_beta: turning point of RPN's smooth L1; 0 is L1.
        rpn_loss_normalizer: RPN's sums are divided by what was drawn ("sampled") or by what could have been,
            RPN.BATCH_SIZE_PER_IMAGE of every image ("sample_size").

    Regions:
        level_eps: added to a region's side, in units of 224 pixels, before its logarithm tells the FPN level.
        roi_aligned: ROIAlign takes pixel centres at half-integers, and regions as small as they are; otherwise at
            integers, and a region's side is at least one pixel of the map.
        box_beta: turning point of the box head's smooth L1; 0 is L1.
        detections_best_first: detections come best first, exactly as many as allowed; otherwise class by class, and
            all that tie with the last one stay.
    """

    box_offset: float
    size_divisibility: int
    frozen_norm_eps: float
    anchor_rounding: str
    anchor_at_cell_center: bool
    rank_proposals_by_logit: bool
    rpn_beta: float
    rpn_loss_normalizer: str
    level_eps: float
    roi_aligned: bool
    box_beta: float
    detections_best_first: bool


CONVENTIONS = {
    # maskrcnn-benchmark and FCOS, with and without VoVNet
    "maskrcnn_benchmark": Convention(
        box_offset=1.0,
        size_divisibility=0,
        frozen_norm_eps=0.0,
        anchor_rounding="sides",
        anchor_at_cell_center=True,
        rank_proposals_by_logit=False,
        rpn_beta=1.0 / 9,
        rpn_loss_normalizer="sampled",
        level_eps=1e-6,
        roi_aligned=False,
        box_beta=1.0,
        detections_best_first=False,
    ),
    # detectron2 0.1 and later, and vovnet-detectron2
    "detectron2": Convention(
        box_offset=0.0,
        size_divisibility=32,
        frozen_norm_eps=1e-5,
        anchor_rounding="none",
        anchor_at_cell_center=False,
        rank_proposals_by_logit=True,
        rpn_beta=0.0,
        rpn_loss_normalizer="sample_size",
        level_eps=1e-8,
        roi_aligned=True,
        box_beta=0.0,
        detections_best_first=True,
    ),
}


def get_convention(name: str) -> Convention:
    """The convention that MODEL.CONVENTION names.

    Raises:
        ValueError: there is no such convention.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"MODEL.CONVENTION is {name!r}; known are {', '.join(map(repr, CONVENTIONS))}")
    return CONVENTIONS[name]
