"""Names that programs written for the forks import and nothing here uses.

The modules in which the forks have them import them from here.
"""

from __future__ import annotations

import torch


def findContours(*args, **kwargs):
    """Call cv2.findContours; return (contours, hierarchy) whatever OpenCV's version."""
    import cv2

    return cv2.findContours(*args, **kwargs)[-2:]


def cat(tensors, dim: int = 0) -> torch.Tensor:
    """Concatenate a list or tuple of tensors; a single one is returned as it is.

    Raises:
        TypeError: tensors is neither a list nor a tuple.
    """
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"cat takes a list or tuple of tensors, got {type(tensors).__name__}")
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def permute_and_flatten(layer: torch.Tensor, N: int, A: int, C: int, H: int, W: int) -> torch.Tensor:
    """Return a map (N, A C, H, W), channels anchor by anchor, as (N, H W A, C): row by row, cell by cell.

    A is not needed and not checked, as in the forks.
    """
    return layer.reshape(N, -1, C, H, W).permute(0, 3, 4, 1, 2).reshape(N, -1, C)


def concat_box_prediction_layers(box_cls, box_regression) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all levels of a head's output as two matrices.

    Args:
        box_cls: L maps (N, A K, H_l, W_l) of class logits.
        box_regression: L maps (N, 4 A, H_l, W_l) of box codes.

    Returns:
        Logits (P, K) and codes (P, 4): image by image, in an image level by level, there row by row, cell by cell.
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
    """Return True: this package needs torch 2.11."""
    return True


def keep_only_positive_boxes(boxes):
    """Return the boxes of each BoxList whose field "labels" is above 0, and the masks (bool) that chose them.

    Args:
        boxes: list or tuple of BoxList with field "labels".
    """
    positive = [boxlist.get_field("labels") > 0 for boxlist in boxes]
    kept = [boxlist[chosen.nonzero().squeeze(1)] for boxlist, chosen in zip(boxes, positive, strict=True)]
    return kept, positive


MIN_KEYPOINTS = 10


def has_valid_annotation(annotations) -> bool:
    """Return whether the forks would train on an image with these annotations of a COCO json.

    There has to be a box wider and higher than one pixel. If the objects have keypoints, at least 10 of them have to be
    visible in all objects together.
    """
    annotations = list(annotations)
    if not annotations or all(min(annotation["bbox"][2:]) <= 1 for annotation in annotations):
        return False
    if "keypoints" not in annotations[0]:
        return True
    visible = sum(v > 0 for annotation in annotations for v in annotation["keypoints"][2::3])
    return visible >= MIN_KEYPOINTS
