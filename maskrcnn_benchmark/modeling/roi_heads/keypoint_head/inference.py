"""Turn keypoint heatmaps into keypoints.

Shapes: N images, D detections of an image, R of all images together, K keypoints of an object, M pixels a side of a
heatmap.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints


class KeypointPostProcessor(nn.Module):
    """Add keypoints to detections.

    Args:
        keypointer: Keypointer.

    Forward takes logits (R, K, M, M) and N BoxLists. It returns N BoxLists with the same fields and "keypoints", a
    PersonKeypoints of (D, K, 3): x, y in pixels of the network input, and 1. Its field "logits" is (D, K).
    """

    def __init__(self, keypointer):
        super().__init__()
        self.keypointer = keypointer

    def forward(self, x: Tensor, boxes: list[BoxList]) -> list[BoxList]:
        results = []
        for heat_maps, detections in zip(x.split([len(detections) for detections in boxes]), boxes, strict=True):
            points, logits = self.keypointer(heat_maps, detections)
            keypoints = PersonKeypoints(points, detections.size)
            keypoints.add_field("logits", logits)
            result = detections.copy_with_fields(detections.fields())
            result.add_field("keypoints", keypoints)
            results.append(result)
        return results


class Keypointer:
    """Find the maximum of each heatmap, resized to its box by bicubic interpolation.

    Args:
        padding: unused; maskrcnn-benchmark's class had it and did not use it either.

    Call it with heatmaps (D, K, M, M) and a BoxList of D boxes. It returns points (D, K, 3): x, y in pixels of the
    image, and 1; and the values (D, K) of the resized maps there.
    """

    def __init__(self, padding=0):
        self.padding = padding

    def __call__(self, heat_maps: Tensor, boxes: BoxList) -> tuple[Tensor, Tensor]:
        num_keypoints = heat_maps.shape[1]
        points = heat_maps.new_ones((len(heat_maps), num_keypoints, 3), dtype=torch.float32)
        logits = heat_maps.new_zeros((len(heat_maps), num_keypoints), dtype=torch.float32)
        for i, (x1, y1, x2, y2) in enumerate(boxes.convert("xyxy").bbox.tolist()):
            box_width, box_height = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
            width, height = math.ceil(box_width), math.ceil(box_height)
            enlarged = F.interpolate(heat_maps[i : i + 1].float(), size=(height, width), mode="bicubic")
            value, place = enlarged.flatten(start_dim=2)[0].max(dim=1)
            points[i, :, 0] = (place % width + 0.5) * (box_width / width) + x1
            points[i, :, 1] = (place // width + 0.5) * (box_height / height) + y1
            logits[i] = value
        return points, logits


def make_roi_keypoint_post_processor(cfg) -> KeypointPostProcessor:
    return KeypointPostProcessor(Keypointer())
