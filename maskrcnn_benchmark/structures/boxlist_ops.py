"""Operations between BoxLists, under the names of maskrcnn-benchmark."""

from __future__ import annotations

import torch

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxes import box_iou


def boxlist_nms(boxlist: BoxList, nms_thresh: float, max_proposals: int = -1, score_field: str = "scores") -> BoxList:
    """Non-maximum suppression at IoU > nms_thresh; boxes keep their order and the caller's mode.

    nms_thresh <= 0 returns the list untouched. max_proposals > 0 keeps the first so many of what is
    left, in list order (the best ones when the list is sorted by score, as RPN candidates are).
    """
    return _suppress(boxlist, None, nms_thresh, max_proposals, score_field)


def boxlist_ml_nms(
    boxlist: BoxList,
    nms_thresh: float,
    max_proposals: int = -1,
    score_field: str = "scores",
    label_field: str = "labels",
) -> BoxList:
    """boxlist_nms in which boxes of different labels never suppress each other."""
    return _suppress(boxlist, label_field, nms_thresh, max_proposals, score_field)


def _suppress(boxlist, label_field, nms_thresh, max_proposals, score_field) -> BoxList:
    if nms_thresh <= 0:
        return boxlist
    boxes = boxlist.convert("xyxy").bbox
    groups = boxlist.get_field(label_field).to(torch.int64) if label_field else None
    inclusive = boxlist.box_offset == 1
    keep = batched_nms(boxes, boxlist.get_field(score_field), groups, nms_thresh, inclusive=inclusive)
    keep = keep.sort().values
    return boxlist[keep[:max_proposals] if max_proposals > 0 else keep]


def remove_small_boxes(boxlist: BoxList, min_size: float) -> BoxList:
    """The boxes whose width and height are both at least min_size pixels."""
    _, _, widths, heights = boxlist.convert("xywh").bbox.unbind(dim=1)
    return boxlist[((widths >= min_size) & (heights >= min_size)).nonzero().squeeze(1)]


def boxlist_iou(boxlist1: BoxList, boxlist2: BoxList) -> torch.Tensor:
    """IoU (N, M) of the boxes of two lists of the same picture, in the box_offset of the first.

    Raises:
        RuntimeError: the lists belong to pictures of different sizes.
    """
    if tuple(boxlist1.size) != tuple(boxlist2.size):
        raise RuntimeError(f"boxlist_iou wants lists of the same picture, got {boxlist1} and {boxlist2}")
    boxlist2 = boxlist2.with_offset(boxlist1.box_offset)
    return box_iou(boxlist1.convert("xyxy").bbox, boxlist2.convert("xyxy").bbox, boxlist1.box_offset)


def cat_boxlist(bboxes: list[BoxList]) -> BoxList:
    """One list of all boxes; sizes, modes, offsets and field names must agree, fields must be tensors.

    Raises:
        ValueError: nothing given, or the lists do not fit together.
    """
    if not bboxes or not all(isinstance(boxlist, BoxList) for boxlist in bboxes):
        raise ValueError(f"cat_boxlist wants a non-empty list of BoxLists, got {bboxes!r}")
    first = bboxes[0]
    for other in bboxes[1:]:
        if tuple(other.size) != tuple(first.size) or other.mode != first.mode:
            raise ValueError(f"cat_boxlist wants lists of one picture in one mode, got {first} and {other}")
        if other.box_offset != first.box_offset:
            raise ValueError(
                f"cat_boxlist wants lists of one box_offset, got {first.box_offset} and {other.box_offset}; "
                "BoxList.with_offset brings one to the other"
            )
        if set(other.fields()) != set(first.fields()):
            raise ValueError(f"cat_boxlist wants the same fields, got {first.fields()} and {other.fields()}")
    joined = BoxList(torch.cat([boxlist.bbox for boxlist in bboxes]), first.size, first.mode, first.box_offset)
    for name in first.fields():
        joined.add_field(name, torch.cat([boxlist.get_field(name) for boxlist in bboxes]))
    return joined
