"""Turn mask logits into masks, relative to their boxes or in the image.

Shapes: N images, D detections of an image, R of all images together, K classes with the background, M pixels a side of
a mask, H x W pixels of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.paste_masks import MaskPasting, paste_masks


class MaskPostProcessor(nn.Module):
    """Add the mask of its class to every detection.

    Args:
        masker: Masker to paste the masks into the image; None leaves them relative to their boxes.

    Forward takes mask logits (R, K, M, M) and N BoxLists with the field "labels". It returns N BoxLists with the same
    fields and "mask": probabilities (D, 1, M, M), or with a masker its result (D, 1, H, W).
    """

    def __init__(self, masker=None):
        super().__init__()
        self.masker = masker

    def forward(self, x: Tensor, boxes: list[BoxList]) -> list[BoxList]:
        return self.attach(self.probabilities(x, boxes), boxes)

    def probabilities(self, x: Tensor, boxes: list[BoxList]) -> Tensor:
        """Return each detection's mask probabilities (R, 1, M, M) for its own class."""
        labels = torch.cat([detections.get_field("labels") for detections in boxes])
        return x[torch.arange(len(x), device=x.device), labels][:, None].float().sigmoid()

    def attach(self, probabilities: Tensor, boxes: list[BoxList], ious: Tensor | None = None) -> list[BoxList]:
        """Add these masks (R, 1, M, M) to the detections as field "mask", pasted if there is a masker.

        Args:
            ious: predicted IoUs (R,) of the masks. If given, the product with the field "scores" becomes "mask_scores".
        """
        masks = probabilities.split([len(detections) for detections in boxes])
        if self.masker is not None:
            masks = self.masker(masks, boxes)
        results = []
        for detections, mask in zip(boxes, masks, strict=True):
            result = detections.copy_with_fields(detections.fields())
            result.add_field("mask", mask)
            results.append(result)
        if ious is not None:
            for result, of_masks in zip(results, ious.split([len(detections) for detections in boxes]), strict=True):
                result.add_field("mask_scores", result.get_field("scores") * of_masks)
        return results


class Masker:
    """Paste masks into their images, see `structures.paste_masks`.

    Args:
        threshold: a pixel belongs to the mask if its probability exceeds this (with aligned, if it reaches this). Below
            0 the result is the probability times 255.
        padding, aligned: see MaskPasting.

    Call it with N tensors (D, 1, M, M) of probabilities and N BoxLists (or one BoxList and a list of one tensor). It
    returns N uint8 tensors (D, 1, H, W) in the size of their BoxList's image.
    """

    def __init__(self, threshold=0.5, padding=1, aligned=False):
        self.threshold = threshold
        self.pasting = MaskPasting(padding, aligned)

    def __call__(self, masks, boxes) -> list[Tensor]:
        boxes = [boxes] if isinstance(boxes, BoxList) else boxes
        if len(masks) != len(boxes):
            raise ValueError(f"Masker got masks of {len(masks)} images and boxes of {len(boxes)}; expected as many")
        return [self.forward_single_image(*pair) for pair in zip(masks, boxes, strict=True)]

    def forward_single_image(self, masks: Tensor, boxes: BoxList) -> Tensor:
        """Paste masks (D, 1, M, M) and return (D, 1, H, W) uint8."""
        if len(masks) != len(boxes):
            raise ValueError(f"Masker got {len(masks)} masks for {len(boxes)} boxes; expected one per box")
        corners = boxes.convert("xyxy").bbox
        return paste_masks(masks, corners, boxes.size, self.threshold, self.pasting)[:, None]


def mask_pasting(cfg) -> MaskPasting:
    """Return the MaskPasting of the config's convention."""
    convention = get_convention(cfg.MODEL.CONVENTION)
    return MaskPasting(convention.mask_padding, convention.mask_aligned)


def make_roi_mask_post_processor(cfg) -> MaskPostProcessor:
    node = cfg.MODEL.ROI_MASK_HEAD
    if not node.POSTPROCESS_MASKS:
        return MaskPostProcessor()
    pasting = mask_pasting(cfg)
    return MaskPostProcessor(Masker(node.POSTPROCESS_MASKS_THRESHOLD, pasting.padding, pasting.aligned))
