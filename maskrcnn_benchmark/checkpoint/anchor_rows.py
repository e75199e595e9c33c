"""Reorder the rows of RPN's and RetinaNet's predictors between programs.

The A anchors of a cell have S sizes and R aspect ratios, A = S R. We, mmdetection and torchvision number them ratios
outside, sizes inside: row r S + s. detectron2 numbers them sizes outside, ratios inside: row s R + r. The orders differ
only if S and R both exceed 1: in C4 and DC5 models and RetinaNet, but not in an RPN on FPN levels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

ANCHOR_PREDICTOR = re.compile(r"^rpn\.head\.(cls_logits|bbox_pred)\.(weight|bias)$")
# Cell anchors of our files, and of early files of detectron2, which are not renamed.
_OUR_CELL_ANCHORS = re.compile(r"^rpn\.anchor_generator\.cell_anchors\.0$")
_DETECTRON2_CELL_ANCHORS = re.compile(r"^(proposal_generator\.)?anchor_generator\.cell_anchors\.0$")
_USUAL_RATIOS = 3
_MOST_ANCHORS = 10_000


def _has_values(tensor) -> bool:
    return isinstance(tensor, Tensor) and not tensor.is_meta and tensor.layout is torch.strided


def count_ratios(anchors: Tensor, *, sizes_outside: bool = False) -> int | None:
    """Count the aspect ratios R of a cell's anchors.

    All anchors of a ratio have the same height / width. Boxes may be inclusive, with corners rounded to whole pixels.

    Args:
        anchors: (A, 4) xyxy.
        sizes_outside: the anchors are in detectron2's order.

    Returns:
        The smallest consistent R; None if `anchors` are not anchors.
    """
    if anchors.ndim != 2 or anchors.shape[1] != 4 or not 1 <= len(anchors) <= _MOST_ANCHORS:
        return None
    corners = anchors.detach().double().cpu()
    sides = corners[:, 2:] - corners[:, :2]
    if not bool(torch.isfinite(sides).all()):
        return None
    for box_offset, slack in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):
        width, height = (sides + box_offset).unbind(dim=1)
        low = (height - slack) / (width + slack).clamp(min=1e-6) * (1 - 1e-4)
        high = (height + slack) / (width - slack).clamp(min=1e-6) * (1 + 1e-4)
        for ratios in range(1, len(anchors)):
            if len(anchors) % ratios:
                continue
            grid, sizes = ((-1, ratios), 0) if sizes_outside else ((ratios, -1), 1)
            if bool((low.reshape(grid).amax(dim=sizes) <= high.reshape(grid).amin(dim=sizes)).all()):
                return ratios
    return len(anchors)


def anchors_of(state: Mapping[str, Tensor]) -> int | None:
    """Return A from the rows of the box predictor `rpn.head.bbox_pred`, or None if there is none."""
    for kind in ("weight", "bias"):
        deltas = state.get(f"rpn.head.bbox_pred.{kind}")
        if deltas is not None and deltas.ndim and len(deltas) and len(deltas) % 4 == 0:
            return len(deltas) // 4
    return None


def ratios_of(ours: Mapping[str, Tensor], model_state: Mapping | None = None, given: int | None = None) -> int:
    """Find R for the anchor predictors of a file; 1 if the order makes no difference.

    R comes from the model's cell anchors, else the file's, else from A: a multiple of three means three ratios.

    Args:
        ours: tensors of the file by our names.
        model_state: tensors of the model that the file is loaded into.
        given: R, if known.

    Raises:
        ValueError: `given` does not divide A, or R is unknown and the order makes a difference.
    """
    anchors = anchors_of(ours)
    if anchors is None:
        return 1
    if given is not None:
        if given < 1 or anchors % given:
            raise ValueError(f"{anchors} anchors per cell can't have {given} aspect ratios")
        return given
    sources = ((model_state or {}, _OUR_CELL_ANCHORS), (ours, _OUR_CELL_ANCHORS), (ours, _DETECTRON2_CELL_ANCHORS))
    for state, pattern in sources:
        for key, tensor in state.items():
            if pattern.search(key) and _has_values(tensor) and len(tensor) == anchors:
                ratios = count_ratios(tensor, sizes_outside=pattern is _DETECTRON2_CELL_ANCHORS)
                if ratios is not None:
                    return ratios
    if anchors % _USUAL_RATIOS == 0:
        return _USUAL_RATIOS
    if anchors < 4:
        return 1
    raise ValueError(
        f"the detector has {anchors} anchors per cell, and their number of aspect ratios is unknown. Their order "
        "differs between programs: load the file into its model, or give --aspect-ratios N to "
        "tools/convert_checkpoint.py"
    )


def _swap(tensor: Tensor, outer: int, inner: int, per_anchor: int) -> Tensor:
    return tensor.unflatten(0, (outer, inner, per_anchor)).transpose(0, 1).flatten(0, 2)


def reorder(key: str, tensor: Tensor, anchors: int | None, ratios: int, *, to_ours: bool) -> Tensor:
    """Reorder the rows of an anchor predictor; other tensors are returned unchanged.

    Args:
        key: our name of the tensor.
        tensor: tensor to reorder.
        anchors: A.
        ratios: R.
        to_ours: convert from sizes outside to ratios outside; otherwise the reverse.
    """
    if not anchors or ratios in (1, anchors) or not ANCHOR_PREDICTOR.search(key):
        return tensor
    if not _has_values(tensor) or not tensor.ndim or len(tensor) % anchors:
        return tensor
    sizes, per_anchor = anchors // ratios, len(tensor) // anchors
    return _swap(tensor, sizes, ratios, per_anchor) if to_ours else _swap(tensor, ratios, sizes, per_anchor)
