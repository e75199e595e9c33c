"""Functions that only programs written for the forks import.

Each is also importable from the module where the forks define it.
"""

from __future__ import annotations

import torch


def findContours(*args, **kwargs):
    """Call cv2.findContours and return (contours, hierarchy) for every version of OpenCV."""
    import cv2

    return cv2.findContours(*args, **kwargs)[-2:]


def cat(tensors, dim: int = 0) -> torch.Tensor:
    """Concatenate a list or tuple of tensors. A single tensor is returned without a copy.

    Raises:
        TypeError: tensors is neither a list nor a tuple.
    """
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"cat requires a list or tuple of tensors, got {type(tensors).__name__}")
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def permute_and_flatten(layer: torch.Tensor, N: int, A: int, C: int, H: int, W: int) -> torch.Tensor:
    """Reshape a map (N, A C, H, W) to (N, H W A, C), in the order row, column, anchor.

    A is ignored, as in the forks.
    """
    return layer.reshape(N, -1, C, H, W).permute(0, 3, 4, 1, 2).reshape(N, -1, C)


def concat_box_prediction_layers(box_cls, box_regression) -> tuple[torch.Tensor, torch.Tensor]:
    """Flatten all levels of a head's output to two matrices.

    Args:
        box_cls: L maps (N, A K, H_l, W_l) of class logits.
        box_regression: L maps (N, 4 A, H_l, W_l) of encoded boxes.

    Returns:
        Logits (P, K) and encoded boxes (P, 4), in the order image, level, row, column, anchor.
    """
    logits, codes = [], []
    for level_logits, level_codes in zip(box_cls, box_regression, strict=True):
        count, channels, height, width = level_logits.shape
        anchors = level_codes.shape[1] // 4
        sizes = (count, anchors, channels // anchors, height, width)
        logits.append(permute_and_flatten(level_logits, *sizes))
        codes.append(permute_and_flatten(level_codes, count, anchors, 4, height, width))
    return tuple(torch.cat(parts, dim=1).flatten(0, 1) for parts in (logits, codes))


def is_pytorch_1_1_0_or_later() -> bool:
    """Return True: this package requires torch 2.11."""
    return True


def keep_only_positive_boxes(boxes):
    """Select the boxes with a positive label.

    Args:
        boxes: list or tuple of BoxLists with the field "labels".

    Returns:
        List of BoxLists, and list of bool masks of the selected boxes.
    """
    positive = [boxlist.get_field("labels") > 0 for boxlist in boxes]
    kept = [boxlist[chosen.nonzero().squeeze(1)] for boxlist, chosen in zip(boxes, positive, strict=True)]
    return kept, positive


MIN_KEYPOINTS = 10


def has_valid_annotation(annotations) -> bool:
    """Return whether the forks train on an image with these COCO annotations.

    At least one box must be wider and higher than one pixel. If the objects have keypoints, at least 10 keypoints must
    be visible in all objects together.
    """
    annotations = list(annotations)
    if not annotations or all(min(annotation["bbox"][2:]) <= 1 for annotation in annotations):
        return False
    if "keypoints" not in annotations[0]:
        return True
    visible = sum(v > 0 for annotation in annotations for v in annotation["keypoints"][2::3])
    return visible >= MIN_KEYPOINTS
