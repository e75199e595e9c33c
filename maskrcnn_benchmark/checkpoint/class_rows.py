"""Where a program keeps the background among the rows of its box and mask predictors.

Ours, like the forks', is class 0 and has rows everywhere: K foreground classes make K + 1 rows of class scores and of
masks and 4 (K + 1) rows of box corrections, 8 where all classes share one (background, foreground). Only the class
scores of the background are ever used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

CLS_SCORE = re.compile(r"roi_heads\.box\.(\d+\.)?predictor\.cls_score\.")
BBOX_PRED = re.compile(r"roi_heads\.box\.(\d+\.)?predictor\.bbox_pred\.")
MASK_LOGITS = re.compile(r"roi_heads\.mask\.(\d+\.)?predictor\.mask_fcn_logits\.")


def _add_in_front(tensor: Tensor, rows: int) -> Tensor:
    return torch.cat((tensor.new_zeros(rows, *tensor.shape[1:]), tensor))


def background_last_to_ours(key: str, tensor: Tensor) -> Tensor:
    """detectron2: background is the last class score and has no row elsewhere. `key` is ours."""
    if CLS_SCORE.search(key):
        return tensor.roll(1, 0)
    if BBOX_PRED.search(key):
        return _add_in_front(tensor, 4)
    return _add_in_front(tensor, 1) if MASK_LOGITS.search(key) else tensor


def ours_to_background_last(key: str, tensor: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    if CLS_SCORE.search(key):
        return tensor.roll(-1, 0)
    if BBOX_PRED.search(key):
        return tensor[4:].clone()
    return tensor[1:].clone() if MASK_LOGITS.search(key) else tensor


def shared_boxes_to_ours(key: str, tensor: Tensor) -> Tensor:
    """mmdetection 1.x: as ours, but 4 rows where all classes share one box correction."""
    return _add_in_front(tensor, 4) if BBOX_PRED.search(key) and len(tensor) == 4 else tensor


def ours_to_shared_boxes(key: str, tensor: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    found = BBOX_PRED.search(key)
    if not found or len(tensor) != 8:
        return tensor
    # One class makes 8 rows too; all stages of a cascade share.
    score = key.replace("bbox_pred", "cls_score")
    shared = found[1] is not None or score not in state or len(state[score]) != 2
    return tensor[4:].clone() if shared else tensor


class RowOrder(NamedTuple):
    """An order of rows: to_ours(our key, tensor), from_ours(our key, tensor, all tensors of ours), each to a tensor."""

    to_ours: Callable[[str, Tensor], Tensor]
    from_ours: Callable[[str, Tensor, Mapping[str, Tensor]], Tensor]


CLASS_ROWS = {
    "ours": RowOrder(lambda key, tensor: tensor, lambda key, tensor, state: tensor),
    "background last": RowOrder(background_last_to_ours, ours_to_background_last),
    "shared boxes": RowOrder(shared_boxes_to_ours, ours_to_shared_boxes),
}
