"""Compare models of the mmdetection convention with recorded outputs of mmdetection 1.2 for equal weights and images.

A golden file (mmdet/) contains, for weights that `fill_d2.py` makes from mmdetection's names: 64 samples of each map
and head output, proposals, detections, losses and gradients of two images (d2/inputs.npz, d2/inputs.json).
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from helpers import fill_d2
from helpers.detectron2_models import GOLDEN as INPUTS
from helpers.initial_weights import zeros_instead_of_random_weights
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

GOLDEN = Path(__file__).parents[1] / "golden" / "mmdet"

# Relative tolerances; batch statistics are least exact in the originals themselves.
LOSS = 1e-4
GRADIENT = 2e-2


def filled_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Make the golden weights from mmdetection's names and shapes, for the keys of `state`, which are ours."""
    theirs, _ = convert_state_dict(state, "mmdetection")
    for name, tensor in theirs.items():
        value = fill_d2.value(name, tensor.shape, fill_d2.MMDETECTION_RULES)
        theirs[name] = tensor if value is None else torch.from_numpy(value)
    return {**state, **to_ours(theirs).tensors}


class MMDetectionModel:
    """Our model with a golden file's weights.

    Args:
        name: golden file without its suffix.
        cfg: config of the model; training uses every anchor and region.
    """

    def __init__(self, name: str, cfg):
        self.golden = json.loads((GOLDEN / f"{name}.json").read_text())
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.cfg = cfg.clone()
        self.cfg.merge_from_list(
            ["MODEL.RPN.BATCH_SIZE_PER_IMAGE", 60000, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8192]
        )
        with zeros_instead_of_random_weights():
            self.model = build_detection_model(self.cfg)
        self.model.load_state_dict(filled_state(self.model.state_dict()))

    @cached_property
    def image_tensors(self):
        """Return two tensors (3, H, W)."""
        arrays = np.load(INPUTS / "inputs.npz")
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (self.cfg.INPUT.PIXEL_MEAN, self.cfg.INPUT.PIXEL_STD))
        return [
            (torch.from_numpy(arrays[key]).permute(2, 0, 1).float() / 255 - mean) / std
            for key in ("image0_rgb", "image1_rgb")
        ]

    def images(self, which):
        return to_image_list([self.image_tensors[i] for i in which], self.cfg.DATALOADER.SIZE_DIVISIBILITY)

    def fixed_rois(self, i):
        _, height, width = self.image_tensors[i].shape
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
        """Return the losses of both images in one batch, with batch norms in evaluation mode or not."""
        self.model.train().zero_grad()
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.train(batch_statistics)
        return self.model(self.images((0, 1)), targets)
