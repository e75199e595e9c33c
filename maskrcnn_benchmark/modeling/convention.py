"""The numeric conventions in which the systems we succeed differ, as plain numbers.

`MODEL.CONVENTION` names one. Builders hand its fields to the components; no component knows the name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Convention:
    """Numbers that decide whether a checkpoint gives the result it was published with.

    Args:
        box_offset: what a side adds to its coordinate difference; 1 for inclusive pixel boxes. It
            enters areas, IoU, NMS, clipping, box coding and the sides of anchors.
        anchor_rounding: what of a cell's anchors is rounded to whole pixels: "sides", the sides of the anchor as
            large as the stride, before it is scaled; "corners" at the end; or "none".
        anchor_at_cell_center: anchors are centred on the middle of their cell, (stride - box_offset) / 2 from its
            corner, instead of on the corner.
    """

    box_offset: float
    anchor_rounding: str
    anchor_at_cell_center: bool


CONVENTIONS = {
    "maskrcnn_benchmark": Convention(box_offset=1.0, anchor_rounding="sides", anchor_at_cell_center=True),
}


def get_convention(name: str) -> Convention:
    """The convention that MODEL.CONVENTION names.

    Raises:
        ValueError: there is no such convention.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"MODEL.CONVENTION is {name!r}; known are {', '.join(map(repr, CONVENTIONS))}")
    return CONVENTIONS[name]
