"""Operations between BoxLists, under the names of maskrcnn-benchmark."""

from __future__ import annotations

import torch

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxes import box_iou


def boxlist_nms(boxlist: BoxList, nms_thresh: float, max_proposals: int = -1, score_field: str = "scores") -> BoxList:
    """Apply NMS at IoU > nms_thresh; boxes keep their order and mode.

    nms_thresh <= 0 returns the list unchanged. max_proposals > 0 keeps the first max_proposals of the remaining boxes
    in list order (the best ones if the list is sorted by score, as RPN candidates are).
    """
    return _suppress(boxlist, None, nms_thresh, max_proposals, score_field)


def boxlist_ml_nms(
    boxlist: BoxList,
    nms_thresh: float,
    max_proposals: int = -1,
    score_field: str = "scores",
    label_field: str = "labels",
) -> BoxList:
    """Apply boxlist_nms per label: boxes of different labels never suppress each other."""
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
    """Keep the boxes whose width and height are both at least min_size pixels."""
    _, _, widths, heights = boxlist.convert("xywh").bbox.unbind(dim=1)
    return boxlist[((widths >= min_size) & (heights >= min_size)).nonzero().squeeze(1)]


def boxlist_iou(boxlist1: BoxList, boxlist2: BoxList) -> torch.Tensor:
    """Return the IoU (N, M) of the boxes of two lists of the same image, in the box_offset of the first.

    Raises:
        RuntimeError: the lists have images of different sizes.
    """
    if tuple(boxlist1.size) != tuple(boxlist2.size):
        raise RuntimeError(f"boxlist_iou requires lists of the same image, got {boxlist1} and {boxlist2}")
    boxlist2 = boxlist2.with_offset(boxlist1.box_offset)
    return box_iou(boxlist1.convert("xyxy").bbox, boxlist2.convert("xyxy").bbox, boxlist1.box_offset)


def cat_boxlist(bboxes: list[BoxList]) -> BoxList:
    """Concatenate lists; sizes, modes, offsets and field names must agree, and fields must be tensors.

    Raises:
        ValueError: the list is empty, or its entries are incompatible.
    """
    if not bboxes or not all(isinstance(boxlist, BoxList) for boxlist in bboxes):
        raise ValueError(f"cat_boxlist requires a non-empty list of BoxLists, got {bboxes!r}")
    first = bboxes[0]
    for other in bboxes[1:]:
        if tuple(other.size) != tuple(first.size) or other.mode != first.mode:
            raise ValueError(f"cat_boxlist requires lists of one image in one mode, got {first} and {other}")
        if other.box_offset != first.box_offset:
            raise ValueError(
                f"cat_boxlist requires lists of one box_offset, got {first.box_offset} and {other.box_offset}; "
                "convert one with BoxList.with_offset"
            )
        if set(other.fields()) != set(first.fields()):
            raise ValueError(f"cat_boxlist requires the same fields, got {first.fields()} and {other.fields()}")
    joined = BoxList(torch.cat([boxlist.bbox for boxlist in bboxes]), first.size, first.mode, first.box_offset)
    for name in first.fields():
        joined.add_field(name, torch.cat([boxlist.get_field(name) for boxlist in bboxes]))
    return joined
