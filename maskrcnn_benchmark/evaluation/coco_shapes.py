"""Masks and keypoints of a COCO file, made fit for the evaluators, which crash or read wild memory on broken ones.

Decisions are those of the data set (data.datasets.mask_table): broken polygons and run lengths do not count, and an
object that is left without a mask has its box as its mask.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.rle import compress_counts, decode_counts, encode_window, parse_counts
from maskrcnn_benchmark.structures.segmentation_mask import MIN_POINTS

logger = logging.getLogger("maskrcnn_benchmark.inference")


def with_shapes(ground_truth: dict, iou_type: str, sizes: dict) -> dict:
    """The ground truth with what the evaluation of `iou_type` reads of every annotation.

    Args:
        ground_truth: as load_ground_truth returns it; not changed.
        iou_type: "segm" fills in "segmentation" (polygons, or RLE of the picture's size), "keypoints" fills in
            "keypoints" and "num_keypoints"; others return the ground truth as it is.
        sizes: (width, height) of the decoded pictures by image id; the file's own sizes may be wrong.
    """
    if iou_type == "segm":
        return _with_masks(ground_truth, sizes)
    if iou_type == "keypoints":
        annotations = [dict(annotation, **_keypoints(annotation)) for annotation in ground_truth["annotations"]]
        return {**ground_truth, "annotations": annotations}
    return ground_truth


def _with_masks(ground_truth: dict, sizes: dict) -> dict:
    known = {image["id"]: (image.get("width"), image.get("height")) for image in ground_truth["images"]} | sizes
    images = [
        dict(image, width=known[image["id"]][0], height=known[image["id"]][1]) for image in ground_truth["images"]
    ]
    annotations = []
    boxes_as_masks = 0
    for annotation in ground_truth["annotations"]:
        if annotation["image_id"] not in known:
            continue  # nobody asks for it, and its size is not known
        segmentation = _usable(annotation.get("segmentation"), known[annotation["image_id"]])
        if segmentation is None:
            boxes_as_masks += not annotation["iscrowd"]
            x, y, w, h = annotation["bbox"]
            segmentation = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(dict(annotation, segmentation=segmentation))
    if boxes_as_masks:
        logger.warning(f"{boxes_as_masks} objects have no usable segmentation; their box is taken for their mask")
    return {**ground_truth, "images": images, "annotations": annotations}


def _usable(segmentation, size: tuple[int, int]):
    """Polygons or a compressed RLE of (width, height); None when nothing in it can be used."""
    width, height = size
    if isinstance(segmentation, dict):
        try:
            runs = parse_counts(segmentation.get("counts"), segmentation.get("size"))
        except ValueError:
            return None
        stored = [int(side) for side in segmentation["size"]]
        if stored == [height, width]:
            return compress_counts(runs, height, width)
        return encode_window(decode_counts(runs, *stored)[:height, :width], 0, 0, height, width)
    if not isinstance(segmentation, list):
        return None
    if segmentation and not any(isinstance(polygon, list) for polygon in segmentation):
        segmentation = [segmentation]
    return [polygon for polygon in segmentation if _is_polygon(polygon)] or None


def _is_polygon(polygon) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 2 * MIN_POINTS
        and len(polygon) % 2 == 0
        and all(isinstance(number, (int, float)) and math.isfinite(np.float32(number)) for number in polygon)
    )


def _keypoints(annotation: dict) -> dict:
    """{"keypoints": flat x, y, visibility, "num_keypoints": visible ones}; all zero where they are broken."""
    count = 3 * len(PersonKeypoints.NAMES)
    keypoints = annotation.get("keypoints")
    numbers = keypoints if isinstance(keypoints, list) and len(keypoints) == count else []
    if not numbers or not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        return {"keypoints": [0] * count, "num_keypoints": 0}
    return {"keypoints": keypoints, "num_keypoints": sum(flag > 0 for flag in keypoints[2::3])}
