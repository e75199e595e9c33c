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
            enters areas, IoU, NMS and clipping.
    """

    box_offset: float


CONVENTIONS = {
    "maskrcnn_benchmark": Convention(box_offset=1.0),
}


def get_convention(name: str) -> Convention:
    """The convention that MODEL.CONVENTION names.

    Raises:
        ValueError: there is no such convention.
    """
    if name not in CONVENTIONS:
        raise ValueError(f"MODEL.CONVENTION is {name!r}; known are {', '.join(map(repr, CONVENTIONS))}")
    return CONVENTIONS[name]
