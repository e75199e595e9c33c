"""Order of the anchors of a cell among the rows of RPN's and RetinaNet's predictors.

A anchors of a cell have S sizes and R aspect ratios, A = S R. Ours, mmdetection's and torchvision's number them ratios
outside, sizes inside: row r S + s. detectron2 numbers them sizes outside, ratios inside: row s R + r. The orders differ
only where S and R are both above 1: C4 and DC5 models and RetinaNet, not an RPN on FPN levels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

ANCHOR_PREDICTOR = re.compile(r"^rpn\.head\.(cls_logits|bbox_pred)\.(weight|bias)$")
# By our names: ours, and those of early files of detectron2, which keep their name.
_OUR_CELL_ANCHORS = re.compile(r"^rpn\.anchor_generator\.cell_anchors\.0$")
_DETECTRON2_CELL_ANCHORS = re.compile(r"^(proposal_generator\.)?anchor_generator\.cell_anchors\.0$")
_USUAL_RATIOS = 3
_MOST_ANCHORS = 10_000


def _has_values(tensor) -> bool:
    return isinstance(tensor, Tensor) and not tensor.is_meta and tensor.layout is torch.strided


def count_ratios(anchors: Tensor, *, sizes_outside: bool = False) -> int | None:
    """Count the aspect ratios R of a cell's anchors (A, 4), xyxy.

    Sizes scale both sides of an anchor alike, so all anchors of a ratio have one quotient of height and width. The
    boxes may be inclusive, and their corners rounded to whole pixels.

    Args:
        sizes_outside: the anchors are in detectron2's order, not in ours.

    Returns:
        The smallest R that fits; None if `anchors` holds no anchors.
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
    """Count the anchors A of a cell by the rows of the box predictor `rpn.head.bbox_pred`; None without one."""
    for kind in ("weight", "bias"):
        deltas = state.get(f"rpn.head.bbox_pred.{kind}")
        if deltas is not None and deltas.ndim and len(deltas) and len(deltas) % 4 == 0:
            return len(deltas) // 4
    return None


def ratios_of(ours: Mapping[str, Tensor], model_state: Mapping | None = None, given: int | None = None) -> int:
    """Find R for the anchor predictors of a file; 1 where the order makes no difference.

    The model's cell anchors decide, then the file's, then A: a multiple of three is taken as three ratios.

    Args:
        ours: tensors of the file by our names.
        model_state: tensors of the model that the file is loaded into.
        given: R, if the caller has it.

    Raises:
        ValueError: `given` does not divide A, or nothing decides and the order makes a difference.
    """
    anchors = anchors_of(ours)
    if anchors is None:
        return 1
    if given is not None:
        if given < 1 or anchors % given:
            raise ValueError(f"{anchors} anchors of a cell can't have {given} aspect ratios")
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
        f"the detector has {anchors} anchors in a cell, and nothing says how many aspect ratios they have. Their order "
        "differs between programs: load the file into its model, or give --aspect-ratios N to "
        "tools/convert_checkpoint.py"
    )


def _swap(tensor: Tensor, outer: int, inner: int, per_anchor: int) -> Tensor:
    return tensor.unflatten(0, (outer, inner, per_anchor)).transpose(0, 1).flatten(0, 2)


def reorder(key: str, tensor: Tensor, anchors: int | None, ratios: int, *, to_ours: bool) -> Tensor:
    """Move the rows of an anchor predictor between the two orders; other tensors are returned as they are.

    Args:
        key: our name.
        anchors: A.
        ratios: R.
        to_ours: from sizes outside to ratios outside; else the other way.
    """
    if not anchors or ratios in (1, anchors) or not ANCHOR_PREDICTOR.search(key):
        return tensor
    if not _has_values(tensor) or not tensor.ndim or len(tensor) % anchors:
        return tensor
    sizes, per_anchor = anchors // ratios, len(tensor) // anchors
    return _swap(tensor, sizes, ratios, per_anchor) if to_ours else _swap(tensor, ratios, sizes, per_anchor)
