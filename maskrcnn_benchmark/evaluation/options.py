"""Options of evaluations. Each evaluation reads the fields that apply to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskrcnn_benchmark.structures.paste_masks import DEFAULT_PASTING, MaskPasting


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `evaluate`.

    Args:
        box_only: evaluate the recall of class-agnostic proposals.
        iou_types: keys of evaluation.coco.PREPARE; "segm" requires the field "mask", "keypoints" the field "keypoints".
        mask_pasting: how masks are pasted into the image.
        keypoint_sigmas: one per keypoint, relative to the object's size; None uses COCO's for the 17 of a person.
        boundary_iou: also compute the boundary IoU of semantic maps.
        write_maps: write each semantic map to maps/NAME.png.
    """

    box_only: bool = False
    iou_types: Sequence[str] = ("bbox",)
    mask_pasting: MaskPasting = DEFAULT_PASTING
    keypoint_sigmas: Sequence[float] | None = None
    boundary_iou: bool = False
    write_maps: bool = True
