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
        codes_bounded_below: decoding bounds how much a box shrinks as it bounds how much it grows.
        best_matches_kept: every ground truth keeps what overlaps it as much as its best match does, if that is at least
            the background threshold, even what overlaps another ground truth more; the last of several has it.
            Otherwise RPN's anchors with a ground truth's best overlap are trained, whatever it is, each towards the
            ground truth that it overlaps most.

    Backbone:
        size_divisibility: pictures that the model pads itself are padded to a multiple of this; 0 to the largest.
        frozen_norm_eps: what frozen batch norm adds to its variances.

    Anchors and proposals:
        anchor_rounding: what of a cell's anchors is rounded to whole pixels: "sides", the sides of the anchor as
            large as the stride, before it is scaled; "corners" at the end; or "none".
        anchor_at_cell_center: anchors are centred on the middle of their cell, (stride - box_offset) / 2 from its
            corner, instead of on the corner.
        outer_anchors_match: anchors that leave the picture by more than RPN.STRADDLE_THRESH are matched before they are
            left out, so that a ground truth whose best one is among them may train none.
        rank_proposals_by_logit: proposals are ranked by their logits, not by probabilities, many of which are equal
            in float32 where logits are large.
        rpn_beta: turning point of RPN's smooth L1; 0 is L1.
        rpn_loss_normalizer: RPN's sums are divided by what was drawn ("sampled") or by what could have been,
            RPN.BATCH_SIZE_PER_IMAGE of every image ("sample_size"), or by what was drawn, where an image without a
            positive or without a negative counts as if it had one ("sampled_or_one").

    Regions:
        level_eps: added to a region's side, in units of 224 pixels, before its logarithm tells the FPN level.
        roi_placement: where ROIAlign sees a region. "clamped": pixel centres lie at integers, and a side is at least
            one pixel of the map; "aligned": they lie at half-integers, and sides are as they are; "inclusive": they lie
            at integers, and a region reaches to the far side of its last pixel.
        box_beta: turning point of the box head's smooth L1; 0 is L1.
        detections_best_first: detections come best first, exactly as many as allowed; otherwise class by class, and
            all that tie with the last one stay.
        nms_in_output_size: they suppress each other in pixels of the original picture, where an inclusive box's + 1 is
            another part of it than in pixels of the network input.

    Masks:
        mask_projection: how a region sees its ground truth, a key of mask_head.targets.PROJECTIONS.
        mask_logits_std: standard deviation of the fresh weights that give mask logits; 0 is He's.
        mask_padding, mask_aligned: how a mask is put into the picture, see structures.paste_masks.

    Data:
        resize_to_nearest: both sides of a resized picture are rounded to the nearest pixel from one scale; otherwise
            the longer one is rounded down.
    """

    box_offset: float
    codes_bounded_below: bool
    best_matches_kept: bool
    size_divisibility: int
    frozen_norm_eps: float
    anchor_rounding: str
    anchor_at_cell_center: bool
    outer_anchors_match: bool
    rank_proposals_by_logit: bool
    rpn_beta: float
    rpn_loss_normalizer: str
    level_eps: float
    roi_placement: str
    box_beta: float
    detections_best_first: bool
    nms_in_output_size: bool
    mask_projection: str
    mask_logits_std: float
    mask_padding: int
    mask_aligned: bool
    resize_to_nearest: bool


CONVENTIONS = {
    # maskrcnn-benchmark and FCOS, with and without VoVNet
    "maskrcnn_benchmark": Convention(
        box_offset=1.0,
        codes_bounded_below=False,
        best_matches_kept=False,
        size_divisibility=0,
        frozen_norm_eps=0.0,
        anchor_rounding="sides",
        anchor_at_cell_center=True,
        outer_anchors_match=True,
        rank_proposals_by_logit=False,
        rpn_beta=1.0 / 9,
        rpn_loss_normalizer="sampled",
        level_eps=1e-6,
        roi_placement="clamped",
        box_beta=1.0,
        detections_best_first=False,
        nms_in_output_size=False,
        mask_projection="crop",
        mask_logits_std=0.0,
        mask_padding=1,
        mask_aligned=False,
        resize_to_nearest=False,
    ),
    # detectron2 0.1 and later, and vovnet-detectron2
    "detectron2": Convention(
        box_offset=0.0,
        codes_bounded_below=False,
        best_matches_kept=False,
        size_divisibility=32,
        frozen_norm_eps=1e-5,
        anchor_rounding="none",
        anchor_at_cell_center=False,
        outer_anchors_match=True,
        rank_proposals_by_logit=True,
        rpn_beta=0.0,
        rpn_loss_normalizer="sample_size",
        level_eps=1e-8,
        roi_placement="aligned",
        box_beta=0.0,
        detections_best_first=True,
        nms_in_output_size=False,
        mask_projection="sample",
        mask_logits_std=0.001,
        mask_padding=0,
        mask_aligned=True,
        resize_to_nearest=True,
    ),
    # mmdetection 1.x, and mmdetection-vovnet
    "mmdetection": Convention(
        box_offset=1.0,
        codes_bounded_below=True,
        best_matches_kept=True,
        size_divisibility=32,
        frozen_norm_eps=1e-5,
        anchor_rounding="corners",
        anchor_at_cell_center=True,
        outer_anchors_match=False,
        rank_proposals_by_logit=False,
        rpn_beta=1.0 / 9,
        rpn_loss_normalizer="sampled_or_one",
        level_eps=1e-6 / 4,  # it is added to sides in units of 56 pixels there
        roi_placement="inclusive",
        box_beta=1.0,
        detections_best_first=True,
        nms_in_output_size=True,
        mask_projection="resize",
        mask_logits_std=0.0,
        mask_padding=0,
        mask_aligned=False,
        resize_to_nearest=True,
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
