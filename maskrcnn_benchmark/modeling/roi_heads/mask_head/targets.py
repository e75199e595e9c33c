"""Crop and resize ground-truth masks to regions, as targets of the mask head.

Shapes: R regions, M pixels a side of a target, H x W pixels of the image.

Each function takes a SegmentationMask with one instance per region, a BoxList of R regions of the same image, and M.
It returns (R, M, M) float32 of 0 and 1 on the device of the regions.
"""

from __future__ import annotations

import torch

from maskrcnn_benchmark.layers.roi_align import roi_align
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.polygons import PolygonInstance

# Shorter sides of a region count as this many pixels, so that scaled polygons stay finite.
LEAST_SIDE = 0.1


def project_masks_on_boxes(segmentation_masks, proposals: BoxList, discretization_size: int) -> torch.Tensor:
    """Follow maskrcnn-benchmark: crop the mask to the region and resize it like an image."""
    size = (discretization_size, discretization_size)
    targets = []
    for mask, (x1, y1, x2, y2) in zip(segmentation_masks, proposals.convert("xyxy").bbox.tolist(), strict=True):
        # A box of one pixel has x2 = x1, but still contains that pixel.
        x2, y2 = (x2 if x2 > x1 else x1 + 1), (y2 if y2 > y1 else y1 + 1)
        targets.append(mask.crop((x1, y1, x2, y2)).resize(size).get_mask_tensor())
    return _stack(targets, proposals, discretization_size)


def sample_masks_in_boxes(segmentation_masks, proposals: BoxList, discretization_size: int) -> torch.Tensor:
    """Follow detectron2, in continuous coordinates.

    Polygons are moved and scaled so that the region fills the target. For pixel masks a target is 1 where ROIAlign
    returns at least a half.
    """
    instances = segmentation_masks.instances
    boxes = proposals.convert("xyxy").bbox.cpu()
    if segmentation_masks.mode == "poly":
        targets = [
            _polygons_in_box(instance, box, discretization_size)
            for instance, box in zip(instances, boxes.double(), strict=True)
        ]
    else:
        targets = [_pixels_in_box(mask, box, discretization_size) for mask, box in zip(instances, boxes, strict=True)]
    return _stack(targets, proposals, discretization_size)


def _polygons_in_box(instance, box, side):
    scale = side / (box[2:] - box[:2]).clamp(min=LEAST_SIDE)
    moved = [((p.double().view(-1, 2) - box[:2]) * scale).flatten() for p in instance.polygons]
    return PolygonInstance(moved, (side, side)).convert_to_binarymask()


def _pixels_in_box(mask, box, side):
    roi = torch.cat((box.new_zeros(1), box))[None]
    return roi_align(mask[None, None].float(), roi, side, 1.0, 0, aligned=True)[0, 0] >= 0.5


def resize_masks_in_boxes(segmentation_masks, proposals: BoxList, discretization_size: int) -> torch.Tensor:
    """Follow mmdetection: crop the mask to the region, with corners truncated to integers, and resize it by OpenCV.

    OpenCV interpolates uint8 bilinearly in fixed point. A target is 1 where the interpolated value exceeds a half by a
    small margin.
    """
    import cv2

    width, height = segmentation_masks.size
    farthest = torch.tensor([width - 1, height - 1] * 2)
    corners = proposals.convert("xyxy").bbox.cpu().clamp(min=0).minimum(farthest).int().tolist()
    size = (discretization_size, discretization_size)
    whole = _rasterize_instances(segmentation_masks)
    targets = []
    for pixels, (x1, y1, x2, y2) in zip(whole, corners, strict=True):
        window = pixels[y1 : max(y2, y1) + 1, x1 : max(x2, x1) + 1].contiguous()
        targets.append(torch.from_numpy(cv2.resize(window.numpy(), size, interpolation=cv2.INTER_LINEAR)))
    return _stack(targets, proposals, discretization_size)


def _rasterize_instances(segmentation_masks):
    """Yield each instance as a (H, W) uint8 tensor.

    Many regions share an object, so its polygons are rasterized once.
    """
    if segmentation_masks.mode == "mask":
        yield from segmentation_masks.instances
        return
    known = {}
    for instance in segmentation_masks.instances:
        points = tuple(polygon.numpy().tobytes() for polygon in instance.polygons)
        if points not in known:
            known[points] = instance.convert_to_binarymask().to(torch.uint8)
        yield known[points]


def _stack(targets, proposals, side):
    if not targets:
        return proposals.bbox.new_zeros((0, side, side))
    return torch.stack(targets).to(proposals.bbox.device, torch.float32)


PROJECTIONS = {"crop": project_masks_on_boxes, "sample": sample_masks_in_boxes, "resize": resize_masks_in_boxes}
