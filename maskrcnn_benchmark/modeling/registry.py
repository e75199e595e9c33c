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
