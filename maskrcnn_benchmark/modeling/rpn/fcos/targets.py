"""Assign ground-truth boxes to the locations of an FCOS head (sections 3.1 and 3.2 of the paper).

Shapes: N images, L levels, P_l locations of level l, P = sum of P_l, G boxes of an image.
"""

from __future__ import annotations

import torch

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxes import box_area

INFINITY = 1e8

# Pairs of locations and boxes compared at a time. An image with a thousand objects then needs some 100 MB (about ten
# float32 matrices of this size).
MAX_PAIRS = 2**21


class FCOSTargets:
    """Assign each location the smallest ground-truth box that contains it and suits its level.

    Args:
        strides: stride of each level in pixels of the network input.
        size_bounds: L - 1 increasing numbers in pixels. A box suits level l if its largest distance to the location
            lies within [size_bounds[l - 1], size_bounds[l]], ends included. The first level has no lower bound, the
            last one no upper bound.
        center_sampling_radius: 0 assigns a box to every location inside it. r > 0 assigns it only to those within r
            strides of its center (upstream's center sampling).
        normalize_distances: return distances in strides of their level instead of pixels.
        box_offset: see Convention; it affects the area that decides which box is smallest.

    Raises:
        ValueError: size_bounds does not match the number of levels.
    """

    def __init__(self, strides, size_bounds, center_sampling_radius=0.0, normalize_distances=False, box_offset=1.0):
        if len(size_bounds) != len(strides) - 1 or list(size_bounds) != sorted(size_bounds):
            raise ValueError(
                f"FCOS with {len(strides)} levels (MODEL.FCOS.FPN_STRIDES) requires {len(strides) - 1} increasing "
                f"sizes (MODEL.FCOS.SIZES_OF_INTEREST), got {tuple(size_bounds)}"
            )
        self.strides = tuple(strides)
        self.size_ranges = list(zip((-1.0, *size_bounds), (*size_bounds, INFINITY), strict=True))
        self.radius = center_sampling_radius
        self.normalize_distances = normalize_distances
        self.box_offset = box_offset

    def __call__(self, locations: list[torch.Tensor], targets: list[BoxList]):
        """Return labels and distances for L lists of locations (P_l, 2) and N BoxLists with the field "labels".

        Returns:
            Labels (N, P) int64, 0 where no box is assigned; and distances (N, P, 4) float32 to left, top, right, bottom
            of the assigned box, undefined where the label is 0.
        """
        points = torch.cat(locations)

        def spread(values):
            """Repeat each level's number for its locations: (P,)."""
            parts = [level.new_full((len(level),), value) for level, value in zip(locations, values, strict=True)]
            return torch.cat(parts)

        per_location = {
            "low": spread(low for low, _ in self.size_ranges),
            "high": spread(high for _, high in self.size_ranges),
            "stride": spread(self.strides),
        }
        labels, distances = zip(*(self._assign(points, per_location, target) for target in targets), strict=True)
        return torch.stack(labels), torch.stack(distances)

    def _assign(self, points, per_location, target: BoxList):
        """Return labels (P,) and distances (P, 4) of one image."""
        boxes = target.convert("xyxy").bbox.to(points.device)
        box_labels = target.get_field("labels").to(points.device)
        best_area = points.new_full((len(points),), INFINITY)
        best_box = torch.zeros(len(points), dtype=torch.int64, device=points.device)
        step = max(1, MAX_PAIRS // max(1, len(points)))
        for start in range(0, len(boxes), step):
            area, index = self._smallest(points, per_location, boxes[start : start + step])
            smaller = area < best_area  # strictly, so that the first of equally small boxes wins
            best_area = torch.where(smaller, area, best_area)
            best_box = torch.where(smaller, index + start, best_box)
        if len(boxes) == 0:
            return torch.zeros_like(best_box), points.new_zeros((len(points), 4))
        labels = torch.where(best_area == INFINITY, torch.zeros_like(best_box), box_labels[best_box])
        chosen = boxes[best_box]
        distances = torch.cat((points - chosen[:, :2], chosen[:, 2:] - points), dim=1)
        if self.normalize_distances:
            distances = distances / per_location["stride"][:, None]
        return labels, distances

    def _smallest(self, points, per_location, boxes):
        """Return area and index (P,) of the smallest eligible box among boxes (g, 4); area INFINITY for none."""
        x, y = points[:, :1], points[:, 1:]
        x1, y1, x2, y2 = boxes.unbind(dim=1)
        left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
        farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
        if self.radius > 0:
            reach = self.radius * per_location["stride"][:, None]
            center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
            left = x - torch.maximum(center_x - reach, x1)
            top = y - torch.maximum(center_y - reach, y1)
            right = torch.minimum(center_x + reach, x2) - x
            bottom = torch.minimum(center_y + reach, y2) - y
        nearest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
        low, high = per_location["low"][:, None], per_location["high"][:, None]
        eligible = (nearest > 0) & (farthest >= low) & (farthest <= high)
        areas = box_area(boxes, self.box_offset).expand(len(points), -1)
        return torch.where(eligible, areas, INFINITY).min(dim=1)
