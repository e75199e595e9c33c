"""Read Detectron's Caffe2 files (.pkl): one table maps their names to ours."""

from __future__ import annotations

import logging
import os
import re
from collections import OrderedDict

import numpy as np
import torch

from .safe_unpickle import load_pickled

logger = logging.getLogger("maskrcnn_benchmark.utils.c2_model_loading")

_CONV_OF_BRANCH = {"a": "1", "b": "2", "c": "3"}

# Start of a Caffe2 name -> ours, tried in order; the end (_w, _b, _s) is in _ENDS. res2..res5 are layer1..layer4, and
# FPN's levels have the same numbers, whatever the block that they come from.
_STARTS = (
    (r"res_conv1_bn|conv1_gn", lambda m: "bn1"),
    (r"res(\d)_(\d+)_branch2([abc])_(?:bn|gn)", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.bn{_CONV_OF_BRANCH[m[3]]}"),
    (r"res(\d)_(\d+)_branch2([abc])", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.conv{_CONV_OF_BRANCH[m[3]]}"),
    (r"res(\d)_(\d+)_branch1_(?:bn|gn)", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.downsample.1"),
    (r"res(\d)_(\d+)_branch1", lambda m: f"layer{int(m[1]) - 1}.{m[2]}.downsample.0"),
    (r"fpn_inner_res(\d)_\d+_sum(?:_lateral)?", lambda m: f"fpn_inner{int(m[1]) - 1}"),
    (r"fpn_res(\d)_\d+_sum", lambda m: f"fpn_layer{int(m[1]) - 1}"),
    (r"conv_rpn(?:_fpn2)?", lambda m: "rpn.head.conv"),
    (r"rpn_(cls_logits|bbox_pred)(?:_fpn2)?", lambda m: f"rpn.head.{m[1]}"),
    (r"_\[mask\]_fcn(\d+)", lambda m: f"mask_fcn{m[1]}"),
    (r"pred", lambda m: "fc1000"),
    (r".+", lambda m: m[0]),  # fc6, cls_score, bbox_pred, conv_fcn1, ... have the same name
)
_ENDS = {"_w": ".weight", "_b": ".bias", "_s": ".weight"}
# The group norms of FPN and heads keep Caffe2's endings, as in the forks; our models have no such names.
_GROUP_NORM_ENDS = {"_gn_s": ".gn.s", "_gn_b": ".gn.bias"}
_BACKBONE_NORM = re.compile(r"conv1_gn_|res\d_")


def rename_c2(name: str) -> str | None:
    """Return our name for a Caffe2 blob, or None for a blob that is not a weight."""
    if name.endswith("_momentum") or name == "weight_order":
        return None
    ends = _ENDS if _BACKBONE_NORM.match(name) else {**_GROUP_NORM_ENDS, **_ENDS}
    end = next((end for end in ends if name.endswith(end)), None)
    if end is None:
        return name
    start = name[: -len(end)]
    return next(ours(found) for pattern, ours in _STARTS if (found := re.fullmatch(pattern, start))) + ends[end]


def convert_c2(blobs: dict) -> dict[str, torch.Tensor]:
    """Convert Caffe2 blobs (arrays by name) to tensors by our names."""
    logger.info("Remapping C2 weights")
    state_dict = OrderedDict()
    for name, value in blobs.items():
        ours = rename_c2(name) if isinstance(name, str) else None
        if ours is None or not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind not in "biuf":
            continue
        logger.debug(f"C2 name: {name} mapped name: {ours}")
        # a copy, because the file may be big-endian, and the array is of the reader's subclass
        state_dict[ours] = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), subok=False))
    return state_dict


def load_c2_format(cfg, f: str | os.PathLike) -> dict:
    """Read a Caffe2 .pkl as {"model": state dict}; a .pkl with an entry "model" is returned unchanged.

    Args:
        cfg: MODEL.BACKBONE.CONV_BODY is used.
        f: path.

    Raises:
        ValueError: the file cannot be read, or MODEL.BACKBONE.CONV_BODY is not a ResNet, the only body of such files.
    """
    loaded = load_pickled(f)
    if not hasattr(loaded, "keys"):
        raise ValueError(f"{f} holds a {type(loaded).__name__}, not a dict of arrays by name")
    if hasattr(loaded.get("model"), "keys"):
        return dict(loaded)
    body = cfg.MODEL.BACKBONE.CONV_BODY
    if not body.startswith("R-"):
        raise ValueError(
            f"{f} is a Caffe2 file, which holds a ResNet, but MODEL.BACKBONE.CONV_BODY is {body}; set it to R-..."
        )
    return {"model": convert_c2(loaded.get("blobs", loaded))}
