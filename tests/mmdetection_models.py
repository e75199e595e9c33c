"""Compares models of the mmdetection convention with what mmdetection 1.2 computed from the same weights and pictures.

A golden file (mmdet/) holds, for weights that `fill_d2.py` makes from mmdetection's names: 64 samples of each map and
head output, proposals, detections, losses and gradients of two pictures (d2/inputs.npz, d2/inputs.json).
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path

import fill_d2
import numpy as np
import torch
from detectron2_models import GOLDEN as INPUTS

from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

GOLDEN = Path(__file__).parent / "golden" / "mmdet"

# Relative; batch statistics are least exact in the originals themselves.
LOSS = 1e-4
GRADIENT = 2e-2

# our name -> mmdetection's, where a group of the pattern is the stage of a cascade
NAMES = (
    (r"^rpn\.head\.conv\.", "rpn_head.rpn_conv."),
    (r"^rpn\.head\.cls_logits\.", "rpn_head.rpn_cls."),
    (r"^rpn\.head\.bbox_pred\.", "rpn_head.rpn_reg."),
    (r"^roi_heads\.box\.(\d\.)?feature_extractor\.fc6\.", r"bbox_head.\1shared_fcs.0."),
    (r"^roi_heads\.box\.(\d\.)?feature_extractor\.fc7\.", r"bbox_head.\1shared_fcs.1."),
    (r"^roi_heads\.box\.(\d\.)?predictor\.cls_score\.", r"bbox_head.\1fc_cls."),
    (r"^roi_heads\.box\.(\d\.)?predictor\.bbox_pred\.", r"bbox_head.\1fc_reg."),
    (r"^roi_heads\.mask\.(\d\.)?predictor\.conv5_mask\.", r"mask_head.\1upsample."),
    (r"^roi_heads\.mask\.(\d\.)?predictor\.mask_fcn_logits\.", r"mask_head.\1conv_logits."),
)


def mmdetection_name(name: str) -> str:
    if name.startswith("backbone.body."):
        return body_name(name.removeprefix("backbone.body."))
    name = re.sub(r"^backbone\.fpn\.fpn_inner(\d)", lambda m: f"neck.lateral_convs.{int(m[1]) - 1}.conv", name)
    name = re.sub(r"^backbone\.fpn\.fpn_layer(\d)", lambda m: f"neck.fpn_convs.{int(m[1]) - 1}.conv", name)
    name = re.sub(
        r"^roi_heads\.mask\.(\d\.)?feature_extractor\.mask_fcn(\d)",
        lambda m: f"mask_head.{m[1] or ''}convs.{int(m[2]) - 1}.conv",
        name,
    )
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def body_name(key: str) -> str:
    """Of the variants that are not depthwise: a step is convolution, norm and ReLU."""
    key = re.sub(r"/(conv|norm)\.", lambda m: f".{'conv norm'.split().index(m[1])}.", key)
    key = re.sub(r"stem\.stem_(\d)\.(\d)", lambda m: f"stem.{3 * int(m[1]) - 3 + int(m[2])}", key)
    key = re.sub(r"stage(\d)", r"OSA_\1", key)
    return "backbone.model." + re.sub(r"(layers\.\d|concat)\.OSA\w+\.", r"\1.", key)


def shared_rows(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Our rows as mmdetection has them: only four where all classes share a correction, none for the background."""
    return tensor[4:] if ".fc_reg." in name and len(tensor) == 8 else tensor


def filled_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The golden weights under our names, for the keys of `state`."""
    filled = {}
    for key, tensor in state.items():
        name = mmdetection_name(key)
        value = fill_d2.value(name, shared_rows(name, tensor).shape, fill_d2.MMDETECTION_RULES)
        if value is None or "anchor_generator" in key:
            filled[key] = tensor
        else:
            value = torch.from_numpy(value)
            filled[key] = torch.cat((torch.zeros_like(tensor[: len(tensor) - len(value)]), value))
    return filled


class MMDetectionModel:
    """Our model under a golden file's weights.

    Args:
        name: golden file without its suffix.
        cfg: of the model; every anchor and region takes part in its training.
    """

    def __init__(self, name: str, cfg):
        self.golden = json.loads((GOLDEN / f"{name}.json").read_text())
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.cfg = cfg.clone()
        self.cfg.merge_from_list(
            ["MODEL.RPN.BATCH_SIZE_PER_IMAGE", 60000, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8192]
        )
        self.model = build_detection_model(self.cfg)
        self.fill()

    def fill(self):
        self.model.load_state_dict(filled_state(self.model.state_dict()))

    @cached_property
    def pictures(self):
        """Two tensors (3, H, W)."""
        pictures = np.load(INPUTS / "inputs.npz")
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (self.cfg.INPUT.PIXEL_MEAN, self.cfg.INPUT.PIXEL_STD))
        return [
            (torch.from_numpy(pictures[key]).permute(2, 0, 1).float() / 255 - mean) / std
            for key in ("image0_rgb", "image1_rgb")
        ]

    def images(self, which):
        return to_image_list([self.pictures[i] for i in which], self.cfg.DATALOADER.SIZE_DIVISIBILITY)

    def fixed_rois(self, i):
        _, height, width = self.pictures[i].shape
        return [BoxList(np.load(INPUTS / "inputs.npz")[f"fixed_rois{i}"], (width, height))]

    def targets(self, with_objects=(True, True)):
        targets = []
        entries = json.loads((INPUTS / "inputs.json").read_text())["targets"]
        for entry, has_objects in zip(entries, with_objects, strict=True):
            height, width = entry["size_hw"]
            count = len(entry["boxes_xyxy"]) if has_objects else 0
            target = BoxList(entry["boxes_xyxy"][:count], (width, height))
            target.add_field("labels", torch.tensor(entry["classes_0based"][:count], dtype=torch.int64) + 1)
            if self.cfg.MODEL.MASK_ON:
                polygons = [[polygon] for polygon in entry["polygons"][:count]]
                target.add_field("masks", SegmentationMask(polygons, (width, height)))
            targets.append(target)
        return targets

    def losses(self, targets, batch_statistics=False):
        """Losses of both pictures in one batch; batch norms in evaluation, or not."""
        self.model.train().zero_grad()
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.train(batch_statistics)
        return self.model(self.images((0, 1)), targets)
