"""The tables of builders: BACKBONES[name](cfg), RPN_HEADS[name](cfg, in_channels, num_anchors), and the ROI heads'
parts, [name](cfg, in_channels). BODIES[name](norm=..., freeze_at=..., out_features=...) needs no cfg.

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

# Its YAMLs merge, its layers are not here; the names are not registered because every registered one builds.
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
