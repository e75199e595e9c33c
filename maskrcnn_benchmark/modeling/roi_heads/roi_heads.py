"""The second stage of a detector, chosen by the config.

Shapes: N images, L maps, C channels.
"""

from __future__ import annotations

from torch import nn

from maskrcnn_benchmark.modeling.roi_heads.box_head.box_head import build_roi_box_head
from maskrcnn_benchmark.modeling.roi_heads.cascade import configs_of_stages, join_stages
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.keypoint_head import build_roi_keypoint_head
from maskrcnn_benchmark.modeling.roi_heads.mask_head.mask_head import build_roi_mask_head


class CombinedROIHeads(nn.ModuleDict):
    """Box, mask and keypoint head in a row.

    Args:
        box: ROIBoxHead, or CascadeBoxHead.
        mask: ROIMaskHead, or CascadeMaskHead behind a CascadeBoxHead; or None.
        keypoint: ROIKeypointHead, or None.

    Forward takes L maps (N, C, H_l, W_l), N BoxLists of proposals and, in training, N BoxLists of ground truth; in
    evaluation, where detections are to suppress each other in pictures of other sizes, these (width, height). It
    returns (x, boxes, losses): x the last head's features; in training the regions that the box head drew and all
    heads' losses (with a cascade, x and the regions are lists with an entry a stage); in evaluation the detections with
    all heads' fields and {}.
    """

    def __init__(self, box, mask=None, keypoint=None):
        heads = {"box": box, "mask": mask, "keypoint": keypoint}
        super().__init__({name: head for name, head in heads.items() if head is not None})

    def forward(self, features, proposals, targets=None, output_sizes=None):
        x, boxes, losses = self["box"](features, proposals, targets, output_sizes)
        if "mask" in self:
            x, boxes, mask_losses = self["mask"](features, boxes, targets, box_features=x)
            losses = {**losses, **mask_losses}
        if "keypoint" in self:
            x, boxes, keypoint_losses = self["keypoint"](features, boxes, targets)
            losses = {**losses, **keypoint_losses}
        return x, boxes, losses


def build_roi_heads(cfg, in_channels):
    """ROI heads of a config, or [] for a model of one stage; in_channels are the backbone's.

    Raises:
        ValueError: the heads do not fit together, or follow a first stage that makes no proposals.
    """
    if cfg.MODEL.RPN_ONLY or cfg.MODEL.RETINANET_ON:
        return []
    if cfg.MODEL.FCOS_ON:
        raise ValueError("MODEL.FCOS_ON is True and MODEL.RPN_ONLY False: FCOS has no second stage. Set RPN_ONLY True.")
    if cfg.MODEL.CASCADE_ON:
        stages = [_build_heads(stage, in_channels) for stage in configs_of_stages(cfg)]
        return CombinedROIHeads(**join_stages(stages, cfg.MODEL.CASCADE.LOSS_WEIGHTS))
    return CombinedROIHeads(**_build_heads(cfg, in_channels))


def _build_heads(cfg, in_channels):
    """The heads by their names in CombinedROIHeads."""
    box = build_roi_box_head(cfg, in_channels)
    heads = {"box": box}
    for name, build in (("mask", build_roi_mask_head), ("keypoint", build_roi_keypoint_head)):
        if not cfg.MODEL[f"{name.upper()}_ON"]:
            continue
        _check_sharing(cfg, name)
        node = cfg.MODEL[f"ROI_{name.upper()}_HEAD"]
        heads[name] = build(cfg, in_channels, box.feature_extractor if node.SHARE_BOX_FEATURE_EXTRACTOR else None)
    return heads


def _check_sharing(cfg, name):
    node, box_extractor = cfg.MODEL[f"ROI_{name.upper()}_HEAD"], cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR
    if node.SHARE_BOX_FEATURE_EXTRACTOR and node.FEATURE_EXTRACTOR != box_extractor:
        raise ValueError(
            f"MODEL.ROI_{name.upper()}_HEAD shares the box head's feature extractor, but wants a "
            f"{node.FEATURE_EXTRACTOR} and the box head has a {box_extractor}. Set its SHARE_BOX_FEATURE_EXTRACTOR to "
            "False, or both FEATURE_EXTRACTORs to the same name"
        )
