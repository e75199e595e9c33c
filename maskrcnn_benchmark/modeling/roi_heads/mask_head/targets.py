"""What regions see of their ground-truth masks: the targets of the mask head.

Shapes: R regions, M pixels a side of a target, H x W pixels of the picture.

Each function takes a SegmentationMask with one instance a region, a BoxList of R regions of the same picture, and M. It
returns (R, M, M) float32 of 0 and 1 on the device of the regions.
"""

from __future__ import annotations

import torch

from maskrcnn_benchmark.layers.roi_align import roi_align
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.segmentation_mask import PolygonInstance

# A narrower or lower region is taken for one of this many pixels, so that polygons stay finite.
LEAST_SIDE = 0.1


def project_masks_on_boxes(segmentation_masks, proposals: BoxList, discretization_size: int) -> torch.Tensor:
    """As maskrcnn-benchmark: the mask is cropped to the region and resized like a picture of its own."""
    size = (discretization_size, discretization_size)
    targets = []
    for mask, (x1, y1, x2, y2) in zip(segmentation_masks, proposals.convert("xyxy").bbox.tolist(), strict=True):
        # a box of one pixel has x2 = x1: it still shows that pixel
        x2, y2 = (x2 if x2 > x1 else x1 + 1), (y2 if y2 > y1 else y1 + 1)
        targets.append(mask.crop((x1, y1, x2, y2)).resize(size).get_mask_tensor())
    return _stack(targets, proposals, discretization_size)


def sample_masks_in_boxes(segmentation_masks, proposals: BoxList, discretization_size: int) -> torch.Tensor:
    """As detectron2, in continuous coordinates: polygons move with the region, which fills the target; of pixels a
    target is 1 where ROIAlign gives at least a half."""
    instances = segmentation_masks.instances
    boxes = proposals.convert("xyxy").bbox.cpu()
    if segmentation_masks.mode == "poly":
        targets = [
            _polygons_in_box(instance, box, discretization_size)
            for instance, box in zip(instances, boxes.double(), strict=True)
        ]
    else:
        targets = [
            _pixels_in_box(mask, box, discretization_size) for mask, box in zip(instances, boxes, strict=True)
        ]
    return _stack(targets, proposals, discretization_size)


def _polygons_in_box(instance, box, side):
    scale = side / (box[2:] - box[:2]).clamp(min=LEAST_SIDE)
    moved = [((p.double().view(-1, 2) - box[:2]) * scale).flatten() for p in instance.polygons]
    return PolygonInstance(moved, (side, side)).convert_to_binarymask()


def _pixels_in_box(mask, box, side):
    roi = torch.cat((box.new_zeros(1), box))[None]
    return roi_align(mask[None, None].float(), roi, side, 1.0, 0, aligned=True)[0, 0] >= 0.5


def _stack(targets, proposals, side):
    if not targets:
        return proposals.bbox.new_zeros((0, side, side))
    return torch.stack(targets).to(proposals.bbox.device, torch.float32)


PROJECTIONS = {"crop": project_masks_on_boxes, "sample": sample_masks_in_boxes}
