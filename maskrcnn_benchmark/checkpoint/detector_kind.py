"""Determine the kind of detector from tensor names."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Tried in order: pattern of our names, kind, config keys that build it.
_KINDS = (
    (r"^rpn\.head\.(centerness|ctrness)\.", "FCOS", "MODEL.FCOS_ON True and MODEL.RPN_ONLY True"),
    (r"^rpn\.head\.cls_tower\.", "RetinaNet", "MODEL.RETINANET_ON True and MODEL.RPN_ONLY True"),
    (r"^roi_heads\.box\.", "R-CNN", "MODEL.FCOS_ON False, MODEL.RETINANET_ON False and MODEL.RPN_ONLY False"),
    (r"^rpn\.head\.conv\.", "RPN", "MODEL.RPN_ONLY True, with MODEL.FCOS_ON and MODEL.RETINANET_ON False"),
    (r"^(\w+\.)?aspp\.", "DeepLabV3", "MODEL.META_ARCHITECTURE SemanticSegmentor"),
)


def detector_kind(names: Iterable[str]) -> tuple[str, str] | None:
    """Return (kind, config keys that build it), or None for a body alone."""
    names = list(names)
    for pattern, kind, keys in _KINDS:
        found = re.compile(pattern)
        if any(found.search(name) for name in names):
            if kind == "R-CNN":
                kind = _rcnn(names)
            if kind == "FCOS":
                return _with_fcos(names)
            return kind, keys
    return None


def _with_fcos(names: list[str]) -> tuple[str, str]:
    text = "\n".join(names)
    if re.search(r"^roi_heads\.box\.", text, re.M):
        return f"{_rcnn(names)} on FCOS", "MODEL.FCOS_ON True and MODEL.RPN_ONLY False"
    if re.search(r"^roi_heads\.", text, re.M):
        return "CenterMask", "MODEL.FCOS_ON True and MODEL.FCOS_MASK True"
    return "FCOS", "MODEL.FCOS_ON True and MODEL.RPN_ONLY True"


def _rcnn(names: list[str]) -> str:
    text = "\n".join(names)
    kind = "Faster R-CNN"
    if re.search(r"^roi_heads\.mask\.", text, re.M):
        kind = "Mask R-CNN"
    elif re.search(r"^roi_heads\.keypoint\.", text, re.M):
        kind = "Keypoint R-CNN"
    return f"Cascade {kind}" if re.search(r"^roi_heads\.box\.\d+\.", text, re.M) else kind


def _family(kind: str) -> str:
    # CenterMask and an R-CNN on FCOS have the layers of FCOS. An RPN has the same layers alone and in an R-CNN.
    if kind == "CenterMask" or kind.endswith("on FCOS"):
        return "FCOS"
    return "R-CNN" if kind.endswith("R-CNN") or kind == "RPN" else kind


def other_detector(file_names: Iterable[str], model_names: Iterable[str]) -> str:
    """Return a sentence if file and model are detectors of different kinds, else ""."""
    of_file, of_model = detector_kind(file_names), detector_kind(model_names)
    if not of_file or not of_model or _family(of_file[0]) == _family(of_model[0]):
        return ""
    return (
        f"The file holds a {of_file[0]}, but the config builds a {of_model[0]}: use the config of the file (it sets "
        f"{of_file[1]}), or a file of a {of_model[0]}."
    )
