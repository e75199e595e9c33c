"""Check that the strides in a config match the backbone's maps."""

from __future__ import annotations

from maskrcnn_benchmark.config.stages import has_box_head, has_roi_heads
from maskrcnn_benchmark.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7

# Number of maps that FPN's top_blocks add. Each has twice the stride of the one before.
_ADDED = {type(None): 0, LastLevelMaxPool: 1, LastLevelP6P7: 2}


def strides_of_maps(backbone) -> tuple[int, ...] | None:
    """Return the strides of a backbone's maps, finest first; None if they are unknown, as for a user's own backbone."""
    body, fpn = getattr(backbone, "body", None), getattr(backbone, "fpn", None)
    strides = getattr(body, "out_strides", None)
    if strides is None or fpn is None:
        return strides
    if type(fpn) is not FPN or type(fpn.top_blocks) not in _ADDED:
        return None
    strides = [strides[k - 1] for k in fpn.levels]
    for _ in range(_ADDED[type(fpn.top_blocks)]):
        strides.append(strides[-1] * 2)
    return tuple(strides)


def first_instance_map(cfg, backbone) -> int:
    """Return the index of the first map that instance heads read, by their finest configured stride; 0 if unknown."""
    strides = strides_of_maps(backbone)
    finest = cfg.MODEL.FCOS.FPN_STRIDES[0] if cfg.MODEL.FCOS_ON else cfg.MODEL.RPN.ANCHOR_STRIDE[0]
    return strides.index(finest) if strides is not None and finest in strides else 0


def check_strides(cfg, model) -> None:
    """Compare the strides of anchors or locations, and the scales of poolers, with the maps of the model's backbone.

    The tools call this before they train or test. build_detection_model does not: a model may be built in parts.

    Raises:
        ValueError: they differ in number or value. The message names the key and its value for this backbone.
    """
    node, strides = cfg.MODEL, strides_of_maps(model.backbone)
    if strides is None or not hasattr(model, "rpn"):
        return
    if node.META_ARCHITECTURE == "PanopticFPN":
        strides = strides[first_instance_map(cfg, model.backbone) :]
    body = f"the maps of MODEL.BACKBONE.CONV_BODY {node.BACKBONE.CONV_BODY!r} have the strides {list(strides)}"
    key, given = "MODEL.RPN.ANCHOR_STRIDE", node.RPN.ANCHOR_STRIDE
    if node.FCOS_ON:
        key, given = "MODEL.FCOS.FPN_STRIDES", node.FCOS.FPN_STRIDES
    elif node.RETINANET_ON:
        key, given = "MODEL.RETINANET.ANCHOR_STRIDES", node.RETINANET.ANCHOR_STRIDES
    if tuple(given) != strides:
        several = key == "MODEL.RPN.ANCHOR_STRIDE" and len(strides) > 1
        hint = "; MODEL.RPN.USE_FPN takes one stride per map" if several else ""
        raise ValueError(f"{key} is {list(given)}, but {body}. Set it to {list(strides)}{hint}.")
    if not has_roi_heads(node):
        return
    for name in ("BOX", "MASK", "KEYPOINT"):
        head = node[f"ROI_{name}_HEAD"]
        if name == "BOX" and not has_box_head(node):
            continue
        if name != "BOX" and (not node[f"{name}_ON"] or (head.SHARE_BOX_FEATURE_EXTRACTOR and has_box_head(node))):
            continue
        if name == "MASK" and head.FEATURE_EXTRACTOR == "ResNet50Conv5ROIFeatureExtractor":
            continue  # it pools as the box head does
        scales = tuple(head.POOLER_SCALES)
        expected = tuple(1 / stride for stride in strides[: len(scales)])
        if len(expected) < len(scales) or any(abs(a - b) > 1e-3 * b for a, b in zip(scales, expected, strict=True)):
            raise ValueError(
                f"MODEL.ROI_{name}_HEAD.POOLER_SCALES is {list(scales)}, but {body}. Set it to 1 / stride of the first "
                f"maps, {[1 / stride for stride in strides[:4]]} or fewer."
            )
