"""Measure how much of an object lies inside its region (Mask Scoring R-CNN, section 3.3).

A region's mask contains only that part of the object, but the MaskIoU head learns the IoU with the whole object.

Each function takes a SegmentationMask with one object per region and a BoxList of R regions (xyxy) of the same image on
the CPU. It returns (R,) float64 shares, at least 1e-10.
"""

from __future__ import annotations

import numpy as np
import torch

from maskrcnn_benchmark.structures.bounding_box import BoxList

LEAST_SHARE = 1e-10


def share_by_areas(segmentation_masks, regions: BoxList) -> torch.Tensor:
    """Follow CenterMask2: pixels of the polygons inside the region, divided by the polygons' exact area; at most 1.

    Overlapping polygons of an object count twice in both. For pixel masks both are numbers of pixels.
    """
    boxes = regions.convert("xyxy").bbox
    if segmentation_masks.mode == "mask":
        shares = [_share_of_pixels(*pair) for pair in zip(segmentation_masks.instances, boxes, strict=True)]
    else:
        instances = segmentation_masks.instances
        shares = [_share_of_polygons(instance, box) for instance, box in zip(instances, boxes, strict=True)]
    return torch.tensor(shares, dtype=torch.float64).clamp(LEAST_SHARE, 1.0)


def _share_of_polygons(instance, box) -> float:
    polygons = [polygon.double().numpy().reshape(-1, 2) for polygon in instance.polygons]
    width, height = (int(side) for side in (box[2:] - box[:2]).tolist())
    whole = sum(_shoelace(points) for points in polygons)
    corner = box[:2].double().numpy()
    inside = _rasterized_area([points - corner for points in polygons], height, width)
    return inside / whole if whole > 0 else 0.0


def _share_of_pixels(mask, box) -> float:
    """Count pixels whose center lies in the region."""
    rows, columns = (torch.arange(side) + 0.5 for side in mask.shape)
    x1, y1, x2, y2 = box
    inside = mask[(rows >= y1) & (rows <= y2)][:, (columns >= x1) & (columns <= x2)]
    return inside.sum().item() / max(mask.sum().item(), 1)


def share_by_first_part(segmentation_masks, regions: BoxList) -> torch.Tensor:
    """Follow CenterMask: pixels of the object's first polygon inside the region, divided by all its pixels.

    The first count rasterizes the polygon on the region. The second rasterizes it on the smallest window that contains
    polygon and region (with corners truncated to integers), clipped to the image. The share may exceed 1. Pixel masks
    are counted as in `share_by_areas`.
    """
    if segmentation_masks.mode == "mask":
        return share_by_areas(segmentation_masks, regions)
    shares = []
    for mask, box in zip(segmentation_masks, regions.convert("xyxy").bbox.tolist(), strict=True):
        first = mask.instances.polygons[0].polygons[0].numpy().reshape(-1, 2)
        width, height = mask.size
        low, high = first.min(axis=0), first.max(axis=0)
        x1, y1, x2, y2 = (int(side) for side in box)
        canvas = (
            max(min(x1, low[0]), 0),
            max(min(y1, low[1]), 0),
            min(max(x2, high[0]), width),
            min(max(y2, high[1]), height),
        )
        whole, inside = (_first_part_area(mask, window) for window in (canvas, box))
        shares.append(inside / whole if whole > 0 else 0.0)
    return torch.tensor(shares, dtype=torch.float64).clamp(min=LEAST_SHARE)


def _first_part_area(mask, window) -> float:
    points = mask.crop(window).instances.polygons[0].polygons[0].numpy().reshape(-1, 2)
    return _rasterized_area([points], int(window[3] - window[1]), int(window[2] - window[0]))


def _rasterized_area(polygons: list[np.ndarray], height: int, width: int) -> float:
    """Count the pixels of each polygon (P, 2) on a canvas by COCO's rule, and add them up."""
    from pycocotools import mask as coco_mask

    if min(height, width) < 1 or not polygons:
        return 0.0
    runs = coco_mask.frPyObjects([points.flatten().tolist() for points in polygons], height, width)
    return float(coco_mask.area(runs).sum())


def _shoelace(points: np.ndarray) -> float:
    """Return the area of a polygon (P, 2)."""
    x, y = points.T
    return 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))


VISIBLE_SHARES = {"areas": share_by_areas, "pixels of the first part": share_by_first_part}
