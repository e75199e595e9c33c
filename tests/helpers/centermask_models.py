"""Compare CenterMask2 and CenterMask with recorded outputs of the originals for the same weights and images.

The files in golden/centermask are like those of golden/d2 (CenterMask2) and golden (CenterMask); the weights have a few
more rules.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from helpers import fill, fill_d2
from helpers.detectron2_models import Detectron2Model
from helpers.golden_models import GOLDEN as MB_GOLDEN
from helpers.golden_models import golden_targets
from helpers.initial_weights import zeros_instead_of_random_weights
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list

GOLDEN = Path(__file__).parents[1] / "golden" / "centermask"
CONFIGS = Path(__file__).parents[2] / "configs" / "vovnet" / "centermask"

# Gains that precede fill_d2's, and offsets of biases.
RULES = [
    (r"top_block\.p[67]\.weight$", 1.0),
    (r"fcos_head\.cls_logits\.weight$", 2.0),
    (r"fcos_head\.bbox_pred\.weight$", 5.0),
    (r"fcos_head\.ctrness\.weight$", 2.0),
    (r"spatialAtt\.conv\.weight$", 0.15),
    (r"maskiou_head\.maskiou\.weight$", 0.4),
    (r"conv_offset\.weight$", 0.5),
]
OFFSETS = [
    (r"fcos_head\.cls_logits\.bias$", -4.5),
    (r"fcos_head\.bbox_pred\.bias$", 8.0),
    (r"maskiou_head\.maskiou\.bias$", 0.6),
]


def value(key, shape):
    """Return the float32 array for CenterMask2's key, or None to leave it unchanged."""
    scale = re.search(r"scales\.(\d+)\.scale$", key)
    if scale:
        return np.full(shape, 0.9 + 0.05 * int(scale[1]), dtype=np.float32)
    drawn = fill_d2.value(key, shape, RULES)
    offset = next((offset for pattern, offset in OFFSETS if re.search(pattern, key)), 0.0)
    if offset:  # added before the rounding to float32
        drawn = (fill_d2.normal(key, shape) * 0.05 + offset).astype(np.float32)
    return drawn


def filled_state(state):
    """Make the golden weights from CenterMask2's names and shapes, for the keys of `state`, which are ours."""
    theirs, left_out = convert_state_dict(state, "centermask2")
    assert not left_out
    for name, tensor in theirs.items():
        drawn = value(name, tensor.shape)
        theirs[name] = tensor if drawn is None else torch.from_numpy(drawn)
    return {**state, **to_ours(theirs).tensors}


def config(name, opts=()):
    cfg = defaults.clone()
    cfg.merge_from_file(CONFIGS / name)
    cfg.merge_from_list(list(opts))
    return cfg


def read_golden(name):
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


class CenterMask2Model(Detectron2Model):
    """Our model with a golden file's weights; name: golden file without its suffix, config: YAML below configs/."""

    def __init__(self, name, config_name):
        self.golden = read_golden(name)
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        opts = [entry for pair in self.golden["train_overrides"].items() for entry in pair]
        self.cfg = config(config_name, opts)
        with zeros_instead_of_random_weights():
            self.model = build_detection_model(self.cfg)
        self.model.load_state_dict(filled_state(self.model.state_dict()))

    def fixed_rois_with(self, fields=()):
        """Return the fixed regions with the recorded classes and scores."""
        recorded = self.golden["fixed_rois"]
        for rois, classes, scores in zip(self.fixed_rois, recorded["classes"], recorded["scores"], strict=True):
            rois.add_field("labels", torch.tensor(classes) + 1)
            rois.add_field("scores", torch.tensor(scores))
        return self.fixed_rois

    def fixed_training_proposals(self):
        """Return given proposals, each list with the ground truth at its end, as the original appends it."""
        lists = []
        for i, target in enumerate(self.targets):
            boxes = torch.from_numpy(self.arrays[f"fixed_train_proposals{i}"])
            lists.append(BoxList(torch.cat((boxes, target.bbox)), target.size, box_offset=0))
        return lists


class CenterMask1Model:
    """Our CenterMask with a golden file's weights; config: YAML below configs/."""

    def __init__(self, name, config_name):
        self.golden = read_golden(name)
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.cfg = config(config_name)
        with zeros_instead_of_random_weights():
            self.model = build_detection_model(self.cfg)
        state = self.model.state_dict()
        filled = fill.fill(state, self.golden["gains"], self.golden["bias_offsets"])
        filled |= {
            key: np.full(tensor.shape, 0.9 + 0.05 * int(key.split(".")[-2]), dtype=np.float32)
            for key, tensor in state.items()
            if key.endswith(".scale")
        }
        self.model.load_state_dict({**state, **{key: torch.from_numpy(drawn) for key, drawn in filled.items()}})

    @cached_property
    def image_tensors(self):
        arrays = np.load(MB_GOLDEN / "inputs.npz")
        mean = torch.tensor(self.cfg.INPUT.PIXEL_MEAN).view(3, 1, 1)
        return [
            torch.from_numpy(arrays[key][:, :, ::-1].copy()).permute(2, 0, 1).float() - mean
            for key in ("image0", "image1")
        ]

    @cached_property
    def images(self):
        return to_image_list(self.image_tensors, self.cfg.DATALOADER.SIZE_DIVISIBILITY)

    @cached_property
    def targets(self):
        return golden_targets(masks=True)

    def fixed_training_proposals(self):
        return [
            BoxList(torch.from_numpy(self.arrays[f"fixed_train_proposals{i}"]), target.size)
            for i, target in enumerate(self.targets)
        ]
