"""Formats that `tools/convert_checkpoint.py --to` writes: the tables of names, and the layout of the file."""

from __future__ import annotations

from dataclasses import dataclass

from .dialects import (
    CENTERMASK2,
    CENTERMASK2_DEFORMABLE,
    DEEPLAB,
    DETECTRON2_C4,
    DETECTRON2_DETECTOR,
    DETECTRON2_FCOS,
    DETECTRON2_RESNET,
    DETECTRON2_RETINANET,
    MMDETECTION_DEPTHWISE_VOVNET,
    MMDETECTION_DETECTOR,
    MMDETECTION_VOVNET,
    TIMM,
    TIMM_DEPTHWISE,
    TORCHVISION_MOBILENET,
    TORCHVISION_RESNET,
    Dialect,
)


@dataclass(frozen=True)
class Target:
    """Format that `tools/convert_checkpoint.py --to` writes.

    Attributes:
        dialects: tables of names, applied if their `ours` matches a name of the model. () writes our own names.
        body_only: the program has only bodies, whose names have no prefix.
        entry: entry of the file in which the program looks for the tensors; "" for a bare state dict.
        extras: regular expression of names that are written unchanged, because our models have the same names, or no
            such tensors.
        alone: prefix added to our names of a body without a detector, before they are converted.
        prefix: prefix that is added to every name.
    """

    dialects: tuple[Dialect, ...]
    body_only: bool = False
    entry: str = "model"
    extras: str = ""
    alone: str = "backbone.body."
    prefix: str = ""


_DETECTRON2 = (DETECTRON2_RESNET, DETECTRON2_DETECTOR, DETECTRON2_C4, DETECTRON2_RETINANET, DETECTRON2_FCOS)
_DETECTRON2_EXTRAS = r"^sem_seg_head\.|^proposal_generator\.anchor_generator\.|^pixel_(mean|std)$"

TARGETS = {
    "maskrcnn_benchmark": Target(()),
    "detectron2": Target(
        _DETECTRON2,
        extras=_DETECTRON2_EXTRAS,
    ),
    "centermask2": Target(
        (*_DETECTRON2, CENTERMASK2, CENTERMASK2_DEFORMABLE),
        extras=_DETECTRON2_EXTRAS,
    ),
    "centermask": Target(()),
    "mmdetection": Target(
        (MMDETECTION_VOVNET, MMDETECTION_DEPTHWISE_VOVNET, MMDETECTION_DETECTOR),
        entry="state_dict",
        extras=r"(^|\.)model\.classifier\.",
        alone="body.",
    ),
    "deeplab": Target(
        (DEEPLAB,),
        entry="state_dict",
        extras=r"^aspp\.(aspp\d(_bn)?|conv[23]|bn2)\.",
        prefix="module.",  # its evaluation cuts seven characters off
    ),
    "timm": Target((TIMM, TIMM_DEPTHWISE, TORCHVISION_RESNET), body_only=True, entry="", extras=r"^(head\.)?fc\."),
    "torchvision": Target(
        (TORCHVISION_RESNET, TORCHVISION_MOBILENET),
        body_only=True,
        entry="",
        extras=r"^fc\.|^classifier\.|^features\.18\.",
    ),
}
