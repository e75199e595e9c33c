"""Build the ROI heads of a detector from a config.

Shapes: N images, L maps, C channels.
"""

from __future__ import annotations

from torch import nn

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.config.stages import has_box_head, has_roi_heads
from maskrcnn_benchmark.modeling.roi_heads.box_head.box_head import build_roi_box_head
from maskrcnn_benchmark.modeling.roi_heads.cascade import CascadeBoxHead, CascadeMaskHead, CascadeROIHeads
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.keypoint_head import build_roi_keypoint_head
from maskrcnn_benchmark.modeling.roi_heads.mask_head.mask_head import build_roi_mask_head
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.maskiou_head import build_roi_maskiou_head
from maskrcnn_benchmark.modeling.roi_heads.regions import make_region_sampler
from maskrcnn_benchmark.modeling.roi_heads.stage import Stage, cascade_stages, single_stage


class CombinedROIHeads(nn.ModuleDict):
    """Box, mask and keypoint head in sequence; without a box head, the others read the first stage's detections.

    Args:
        box: ROIBoxHead, or None if the proposals are the detections.
        mask: ROIMaskHead, or None.
        keypoint: ROIKeypointHead, or None.
        maskiou: ROIMaskIoUHead that scores the masks, or None.
        sampler: RegionSampler for training without a box head.
        clips_detections: clip detections to their images at the end, and drop those without area.

    Forward takes
        features: L maps (N, C, H_l, W_l).
        proposals: N BoxLists; without a box head, with the fields "labels" and "scores".
        targets: in training, N BoxLists of ground truth.
        output_sizes: in evaluation, N (width, height); if given, NMS runs at these sizes.

    Returns:
        (x, boxes, losses), where x is the last head's features. In training, boxes are the sampled regions, and losses
        has the losses of all heads. In evaluation, boxes are the detections with all heads' fields, and losses is {}.
    """

    def __init__(self, box=None, mask=None, keypoint=None, maskiou=None, sampler=None, clips_detections=False):
        heads = {"box": box, "mask": mask, "maskiou": maskiou, "keypoint": keypoint}
        super().__init__({name: head for name, head in heads.items() if head is not None})
        self.sampler = sampler
        self.clips_detections = clips_detections

    def forward(self, features, proposals, targets=None, output_sizes=None):
        x, boxes, losses = None, proposals, {}
        if "box" in self:
            x, boxes, losses = self["box"](features, proposals, targets, output_sizes)
        elif self.training:
            boxes = self.sampler(proposals, targets)
        if "mask" in self:
            maskiou = self["maskiou"] if "maskiou" in self else None
            x, boxes, mask_losses = self["mask"](
                features, boxes, targets, box_features=x, maskiou=maskiou, all_positive="box" not in self
            )
            losses = {**losses, **mask_losses}
        if "keypoint" in self:
            x, boxes, keypoint_losses = self["keypoint"](features, boxes, targets)
            losses = {**losses, **keypoint_losses}
        return x, boxes if self.training else self.finish(boxes), losses

    def finish(self, detections):
        """Clip the detections (N BoxLists) if clips_detections. Call this after all heads have read their boxes."""
        return [boxes.clip_to_image() for boxes in detections] if self.clips_detections else detections


def build_roi_heads(cfg, in_channels):
    """Build the ROI heads of a config, or [] for a one-stage model; in_channels are the backbone's.

    Raises:
        ValueError: the heads are incompatible, or the first stage makes no proposals.
    """
    if not has_roi_heads(cfg.MODEL):
        return []
    if not has_box_head(cfg.MODEL):
        return CombinedROIHeads(
            **_build_heads(cfg, in_channels, single_stage(cfg)),
            sampler=make_region_sampler(cfg),
            clips_detections=not get_convention(cfg.MODEL.CONVENTION).dense_boxes_clipped,
        )
    if cfg.MODEL.CASCADE_ON:
        stages = [_build_heads(cfg, in_channels, stage) for stage in cascade_stages(cfg)]
        box = CascadeBoxHead([stage["box"] for stage in stages], cfg.MODEL.CASCADE.LOSS_WEIGHTS)
        return CascadeROIHeads(box, CascadeMaskHead([stage["mask"] for stage in stages]) if cfg.MODEL.MASK_ON else None)
    return CombinedROIHeads(**_build_heads(cfg, in_channels, single_stage(cfg)))


def _build_heads(cfg, in_channels, stage: Stage) -> dict[str, nn.Module]:
    """Build the heads of one stage, by their names in CombinedROIHeads."""
    box = build_roi_box_head(cfg, in_channels, stage) if has_box_head(cfg.MODEL) else None
    heads = {} if box is None else {"box": box}
    if cfg.MODEL.MASK_ON:
        heads["mask"] = build_roi_mask_head(cfg, in_channels, _shared_extractor(cfg, "mask", box), stage)
    if cfg.MODEL.MASK_ON and cfg.MODEL.MASKIOU_ON:
        heads["maskiou"] = build_roi_maskiou_head(cfg, in_channels)
    if cfg.MODEL.KEYPOINT_ON:
        heads["keypoint"] = build_roi_keypoint_head(cfg, in_channels, _shared_extractor(cfg, "keypoint", box))
    return heads


def _shared_extractor(cfg, name: str, box: nn.Module | None) -> nn.Module | None:
    """Return the box head's feature extractor if the head of this name shares it."""
    if box is None:
        return None
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
