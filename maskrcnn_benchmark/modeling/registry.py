"""Registries of builders.

- BACKBONES[name](cfg)
- RPN_HEADS[name](cfg, in_channels, num_anchors)
- the parts of the ROI heads: [name](cfg, in_channels)
- BODIES[name](norm=..., freeze_at=..., out_features=...), without a cfg

Importing `modeling.backbone`, `modeling.rpn.rpn` and `modeling.roi_heads.roi_heads` fills them.
"""

from maskrcnn_benchmark.utils.registry import Registry

BACKBONES = Registry()
BODIES = Registry()
RPN_HEADS = Registry()
ROI_BOX_FEATURE_EXTRACTORS = Registry()
ROI_BOX_PREDICTOR = Registry()
ROI_KEYPOINT_FEATURE_EXTRACTORS = Registry()
ROI_KEYPOINT_PREDICTOR = Registry()
ROI_MASK_FEATURE_EXTRACTORS = Registry()
ROI_MASK_PREDICTOR = Registry()
ROI_MASKIOU_FEATURE_EXTRACTORS = Registry()
ROI_MASKIOU_PREDICTOR = Registry()


def channels_of(module, source: str) -> int:
    """Return `module.out_channels`, which every registered backbone and feature extractor must set.

    Args:
        source: the config key and its value, for the error message.

    Raises:
        ValueError: the attribute is missing or is not a positive integer.
    """
    channels = getattr(module, "out_channels", None)
    if isinstance(channels, int) and channels > 0:
        return channels
    found = "has no attribute out_channels" if channels is None else f"has out_channels {channels!r}"
    raise ValueError(
        f"{source}: its builder returns a {type(module).__name__} that {found}. The following parts take their input "
        "width from it: set out_channels to the number of output channels (an int) before the builder returns."
    )


# FBNet's YAMLs load, but its layers are not here. The names are not registered because every registered name builds.
_NO_FBNET = (
    "FBNet's layers are not in this package. For a small model set MODEL.BACKBONE.CONV_BODY to MNV2-FPN-RETINANET "
    "(FCOS) or V-27-FPN, with the heads of the file you start from, such as configs/e2e_faster_rcnn_R_50_FPN_1x.yaml"
)
for _table, _name in (
    (BACKBONES, "FBNet"),
    (RPN_HEADS, "FBNet.rpn_head"),
    (ROI_BOX_FEATURE_EXTRACTORS, "FBNet.roi_head"),
    (ROI_KEYPOINT_FEATURE_EXTRACTORS, "FBNet.roi_head_keypoints"),
    (ROI_MASK_FEATURE_EXTRACTORS, "FBNet.roi_head_mask"),
):
    _table.refuse(_name, _NO_FBNET)
