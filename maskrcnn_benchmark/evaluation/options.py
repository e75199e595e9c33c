"""What all evaluations are told; each reads the fields that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskrcnn_benchmark.structures.paste_masks import DEFAULT_PASTING, MaskPasting


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `evaluate` and of the evaluations behind it.

    Args:
        box_only: the predictions are proposals without classes; their recall is evaluated.
        iou_types: keys of evaluation.coco.PREPARE; "segm" needs the field "mask", "keypoints" the field "keypoints".
        mask_pasting: how masks are pasted into the image.
        keypoint_sigmas: per keypoint, relative to the object's size; None takes COCO's for the 17 of a person.
        boundary_iou: measure the boundary IoU of semantic maps, too.
        write_maps: write each semantic map as maps/NAME.png.
    """

    box_only: bool = False
    iou_types: Sequence[str] = ("bbox",)
    mask_pasting: MaskPasting = DEFAULT_PASTING
    keypoint_sigmas: Sequence[float] | None = None
    boundary_iou: bool = False
    write_maps: bool = True
