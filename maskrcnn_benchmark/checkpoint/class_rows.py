"""Convert the rows of box and mask predictors between programs, which place the background differently.

Here, as in the forks, the background is class 0 and has rows in every predictor: for K foreground classes there are
K + 1 rows of class scores, of masks and of mask IoUs, and 4 (K + 1) rows of box regression, or 8 if it is
class-agnostic (background, foreground). Of the background's rows only those of the class scores are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

CLS_SCORE = re.compile(r"roi_heads\.box\.(\d+\.)?predictor\.cls_score\.")
BBOX_PRED = re.compile(r"roi_heads\.box\.(\d+\.)?predictor\.bbox_pred\.")
MASK_LOGITS = re.compile(r"roi_heads\.(mask\.(\d+\.)?predictor\.mask_fcn_logits|maskiou\.predictor\.maskiou)\.")


def _add_in_front(tensor: Tensor, rows: int) -> Tensor:
    return torch.cat((tensor.new_zeros(rows, *tensor.shape[1:]), tensor))


def background_last_to_ours(key: str, tensor: Tensor) -> Tensor:
    """Convert from detectron2, where the background is the last class score and has no other rows. `key` is ours."""
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
    """Convert from mmdetection 1.x, which has 4 rows for class-agnostic box regression, and otherwise our rows."""
    return _add_in_front(tensor, 4) if BBOX_PRED.search(key) and len(tensor) == 4 else tensor


def ours_to_shared_boxes(key: str, tensor: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    found = BBOX_PRED.search(key)
    if not found or len(tensor) != 8:
        return tensor
    # one class also gives 8 rows; stages of a cascade are always class-agnostic
    score = key.replace("bbox_pred", "cls_score")
    shared = found[1] is not None or score not in state or len(state[score]) != 2
    return tensor[4:].clone() if shared else tensor


class RowOrder(NamedTuple):
    """Conversions of rows: to_ours(our key, tensor) and from_ours(our key, tensor, our state dict) return a tensor."""

    to_ours: Callable[[str, Tensor], Tensor]
    from_ours: Callable[[str, Tensor, Mapping[str, Tensor]], Tensor]


CLASS_ROWS = {
    "ours": RowOrder(lambda key, tensor: tensor, lambda key, tensor, state: tensor),
    "background last": RowOrder(background_last_to_ours, ours_to_background_last),
    "shared boxes": RowOrder(shared_boxes_to_ours, ours_to_shared_boxes),
}
