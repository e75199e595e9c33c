"""Build the ROI heads of a detector from a config.

Shapes: N images, L maps, C channels.
"""

from __future__ import annotations

from torch import nn

from maskrcnn_benchmark.modeling.roi_heads.box_head.box_head import build_roi_box_head
from maskrcnn_benchmark.modeling.roi_heads.cascade import CascadeBoxHead, CascadeMaskHead, CascadeROIHeads
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.keypoint_head import build_roi_keypoint_head
from maskrcnn_benchmark.modeling.roi_heads.mask_head.mask_head import build_roi_mask_head
from maskrcnn_benchmark.modeling.roi_heads.stage import Stage, cascade_stages, single_stage


class CombinedROIHeads(nn.ModuleDict):
    """Box, mask and keypoint head in sequence.

    Args:
        box: ROIBoxHead.
        mask: ROIMaskHead, or None.
        keypoint: ROIKeypointHead, or None.

    Forward takes
        features: L maps (N, C, H_l, W_l).
        proposals: N BoxLists.
        targets: in training, N BoxLists of ground truth.
        output_sizes: in evaluation, N (width, height); if given, NMS runs at these sizes.

    Returns:
        (x, boxes, losses), where x is the last head's features. In training, boxes are the regions that the box head
        sampled, and losses are all heads'. In evaluation, boxes are the detections with all heads' fields, and losses
        is {}.
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
    """Build the ROI heads of a config, or [] for a one-stage model; in_channels are the backbone's.

    Raises:
        ValueError: the heads are incompatible, or the first stage makes no proposals.
    """
    if cfg.MODEL.RPN_ONLY or cfg.MODEL.RETINANET_ON:
        return []
    if cfg.MODEL.FCOS_ON:
        raise ValueError("MODEL.FCOS_ON is True and MODEL.RPN_ONLY False: FCOS has no second stage. Set RPN_ONLY True.")
    if cfg.MODEL.CASCADE_ON:
        stages = [_build_heads(cfg, in_channels, stage) for stage in cascade_stages(cfg)]
        box = CascadeBoxHead([stage["box"] for stage in stages], cfg.MODEL.CASCADE.LOSS_WEIGHTS)
        return CascadeROIHeads(box, CascadeMaskHead([stage["mask"] for stage in stages]) if cfg.MODEL.MASK_ON else None)
    return CombinedROIHeads(**_build_heads(cfg, in_channels, single_stage(cfg)))


def _build_heads(cfg, in_channels, stage: Stage) -> dict[str, nn.Module]:
    """Build the heads of one stage, by their names in CombinedROIHeads."""
    box = build_roi_box_head(cfg, in_channels, stage)
    heads = {"box": box}
    if cfg.MODEL.MASK_ON:
        heads["mask"] = build_roi_mask_head(cfg, in_channels, _shared_extractor(cfg, "mask", box), stage)
    if cfg.MODEL.KEYPOINT_ON:
        heads["keypoint"] = build_roi_keypoint_head(cfg, in_channels, _shared_extractor(cfg, "keypoint", box))
    return heads


def _shared_extractor(cfg, name: str, box: nn.Module) -> nn.Module | None:
    """Return the box head's feature extractor if the head of this name shares it."""
    _check_sharing(cfg, name)
    return box.feature_extractor if cfg.MODEL[f"ROI_{name.upper()}_HEAD"].SHARE_BOX_FEATURE_EXTRACTOR else None


def _check_sharing(cfg, name):
    node, box_extractor = cfg.MODEL[f"ROI_{name.upper()}_HEAD"], cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR
    if node.SHARE_BOX_FEATURE_EXTRACTOR and node.FEATURE_EXTRACTOR != box_extractor:
        raise ValueError(
            f"MODEL.ROI_{name.upper()}_HEAD shares the box head's feature extractor, but its FEATURE_EXTRACTOR is "
            f"{node.FEATURE_EXTRACTOR} and the box head's is {box_extractor}. Set its SHARE_BOX_FEATURE_EXTRACTOR to "
            "False, or both FEATURE_EXTRACTORs to the same name"
        )
