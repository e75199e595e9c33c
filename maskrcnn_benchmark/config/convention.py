"""Numeric conventions of maskrcnn-benchmark, detectron2, mmdetection and CenterMask, as plain numbers and flags.

`MODEL.CONVENTION` names one of them. Builders pass its fields to the components, which never test the name. Numbers
that are config keys in those projects (thresholds, numbers of boxes, pixel means, ...) are config keys here too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Convention:
    """Numbers that decide whether a checkpoint reproduces its published results.

    Boxes:
        box_offset: width = x2 - x1 + box_offset; 1 for inclusive boxes. Used in areas, IoU, NMS, clipping, box coding,
            flips and the sides of anchors.
        codes_bounded_below: decoding limits how much a box shrinks, not only how much it grows.
        best_matches_kept: True: every ground-truth box keeps its best matches if their IoU reaches the background
            threshold, even those that overlap another box more. If several boxes claim one anchor or region, the
            last one gets it. False: RPN's anchors with the best IoU for some ground-truth box are positives, whatever
            the IoU. Each is assigned to the box that it overlaps most.

    Backbone:
        size_divisibility: the model pads images to a multiple of this; 0 pads them only to the largest image.
        frozen_norm_eps: eps that frozen batch norm adds to the variance.
        vovnet_he_init: initialize a VoVNet by He's distribution; otherwise by torch's default.

    Anchors and proposals:
        anchor_rounding: rounding of cell anchors to whole pixels. "sides" rounds the sides of the base anchor, whose
            size is the stride, before scaling; "corners" rounds the final corners; "none" disables it.
        anchor_at_cell_center: anchors are centred on the middle of their cell, (stride - box_offset) / 2 from its
            corner, instead of on the corner.
        outer_anchors_match: anchors that exceed the image by more than RPN.STRADDLE_THRESH are matched before they are
            dropped, so that a ground-truth box may lose its best anchor.
        rank_proposals_by_logit: rank proposals by logits. Large logits give equal float32 probabilities.
        rpn_beta: beta of RPN's smooth L1; 0 is L1.
        rpn_loss_normalizer: divisor of RPN's summed losses. "sampled": number of sampled anchors; "sample_size":
            RPN.BATCH_SIZE_PER_IMAGE of every image; "sampled_or_one": number of sampled anchors, with at least one
            positive and one negative per image.

    FCOS:
        dense_score_root: the score is the square root of class probability times centerness, not the product.
        dense_best_first: detections come best first; otherwise in the order of their candidates: level by level.
        dense_boxes_clipped: boxes are clipped to the image before NMS and before ROI heads see them; otherwise at the
            end, when all heads have read the whole boxes.
        dense_regions_sampled: heads without a box head train on a sample of ROI_HEADS.BATCH_SIZE_PER_IMAGE regions;
            otherwise on every region that matches an object.

    Regions:
        level_eps: added to a region's side, in units of 224 pixels, before the logarithm that selects the FPN level;
            with CenterMask's levels, to the ratio of the areas of image and region.
        roi_placement: coordinates of ROIAlign. "clamped": pixel centres are at integers, and sides are at least one
            pixel of the map; "aligned": pixel centres are at half-integers, and sides are not clamped; "inclusive":
            pixel centres are at integers, and a region includes its last pixel.
        box_beta: beta of the box head's smooth L1; 0 is L1.
        detections_best_first: sort detections by score and keep exactly the maximum number; otherwise sort them by
            class, and keep all that tie with the last one.
        nms_in_output_size: run NMS in pixels of the original image. The + 1 of inclusive boxes makes a difference.

    Masks:
        mask_projection: projection of ground-truth masks onto regions, a key of mask_head.targets.PROJECTIONS.
        mask_logits_std: standard deviation of initial weights of the mask logits; 0 uses He initialisation.
        mask_scoring_he_init: initialize attention and MaskIoU layers by He's normal distribution; otherwise by torch's
            default (attention) and a uniform distribution (linear layers).
        maskiou_share: measures how much of an object lies in its region, a key of
            maskiou_head.visible_share.VISIBLE_SHARES.
        mask_padding, mask_aligned: how masks are pasted into the image, see structures.paste_masks.

    Data:
        resize_to_nearest: scale both sides of an image by one factor and round them to the nearest pixel; otherwise
            round the longer side down.
    """

    box_offset: float
    codes_bounded_below: bool
    best_matches_kept: bool
    size_divisibility: int
    frozen_norm_eps: float
    vovnet_he_init: bool
    anchor_rounding: str
    anchor_at_cell_center: bool
    outer_anchors_match: bool
    rank_proposals_by_logit: bool
    rpn_beta: float
    rpn_loss_normalizer: str
    dense_score_root: bool
    dense_best_first: bool
    dense_boxes_clipped: bool
    dense_regions_sampled: bool
    level_eps: float
    roi_placement: str
    box_beta: float
    detections_best_first: bool
    nms_in_output_size: bool
    mask_projection: str
    mask_logits_std: float
    mask_scoring_he_init: bool
    maskiou_share: str
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
        vovnet_he_init=True,
        anchor_rounding="sides",
        anchor_at_cell_center=True,
        outer_anchors_match=True,
        rank_proposals_by_logit=False,
        rpn_beta=1.0 / 9,
        rpn_loss_normalizer="sampled",
        dense_score_root=True,
        dense_best_first=True,
        dense_boxes_clipped=True,
        dense_regions_sampled=True,
        level_eps=1e-6,
        roi_placement="clamped",
        box_beta=1.0,
        detections_best_first=False,
        nms_in_output_size=False,
        mask_projection="crop",
        mask_logits_std=0.0,
        mask_scoring_he_init=True,
        maskiou_share="areas",
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
        vovnet_he_init=True,
        anchor_rounding="none",
        anchor_at_cell_center=False,
        outer_anchors_match=True,
        rank_proposals_by_logit=True,
        rpn_beta=0.0,
        rpn_loss_normalizer="sample_size",
        dense_score_root=True,
        dense_best_first=True,
        dense_boxes_clipped=True,
        dense_regions_sampled=True,
        level_eps=1e-8,
        roi_placement="aligned",
        box_beta=0.0,
        detections_best_first=True,
        nms_in_output_size=False,
        mask_projection="sample",
        mask_logits_std=0.001,
        mask_scoring_he_init=True,
        maskiou_share="areas",
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
        vovnet_he_init=True,
        anchor_rounding="corners",
        anchor_at_cell_center=True,
        outer_anchors_match=False,
        rank_proposals_by_logit=False,
        rpn_beta=1.0 / 9,
        rpn_loss_normalizer="sampled_or_one",
        dense_score_root=True,
        dense_best_first=True,
        dense_boxes_clipped=True,
        dense_regions_sampled=True,
        level_eps=1e-6 / 4,  # mmdetection adds 1e-6 to sides in units of 56 pixels
        roi_placement="inclusive",
        box_beta=1.0,
        detections_best_first=True,
        nms_in_output_size=True,
        mask_projection="resize",
        mask_logits_std=0.0,
        mask_scoring_he_init=True,
        maskiou_share="areas",
        mask_padding=0,
        mask_aligned=False,
        resize_to_nearest=True,
    ),
}
# CenterMask2, on detectron2
CONVENTIONS["centermask2"] = replace(
    CONVENTIONS["detectron2"],
    vovnet_he_init=False,
    dense_boxes_clipped=False,
)
# CenterMask, on maskrcnn-benchmark
CONVENTIONS["centermask"] = replace(
    CONVENTIONS["maskrcnn_benchmark"],
    dense_score_root=False,
    dense_best_first=False,
    dense_regions_sampled=False,
    mask_scoring_he_init=False,
    maskiou_share="pixels of the first part",
)


def get_convention(name: str) -> Convention:
    """Return the convention for a value of MODEL.CONVENTION.

    Raises:
        ValueError: the convention does not exist.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"MODEL.CONVENTION is {name!r}; known are {', '.join(map(repr, CONVENTIONS))}")
    return CONVENTIONS[name]
