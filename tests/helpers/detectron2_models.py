"""Compares models of the detectron2 convention with what detectron2 computed from the same weights and pictures.

A golden file holds, for weights that `fill_d2.py` makes from detectron2's names: 64 samples of each map and head
output, proposals, detections, losses and gradients of two pictures (d2/inputs.npz, d2/inputs.json).
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from helpers import fill_d2
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.semantic_map import SemanticMap

GOLDEN = Path(__file__).parents[1] / "golden" / "d2"

# Largest difference of a tensor as a part of the recorded largest value, and relative ones of losses and gradients.
TENSOR = 1e-4
LOSS = 1e-4
GRADIENT = 2e-2
BOX_PIXELS = 0.05
SCORE = 1e-4
# scores closer than this may come in another order
SWAP = 1e-5


def filled_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The golden weights, made from detectron2's names and shapes, for the keys of `state`, which are ours."""
    theirs, _ = convert_state_dict(state, "detectron2")
    for name, tensor in theirs.items():
        value = fill_d2.value(name, tensor.shape)
        theirs[name] = tensor if value is None else torch.from_numpy(value)
    return {**state, **to_ours(theirs).tensors}


def golden_targets(masks: bool, semantic: bool = False) -> list[BoxList]:
    targets = []
    for i, entry in enumerate(json.loads((GOLDEN / "inputs.json").read_text())["targets"]):
        height, width = entry["size_hw"]
        target = BoxList(entry["boxes_xyxy"], (width, height), box_offset=0)
        target.add_field("labels", torch.tensor(entry["classes_0based"]) + 1)
        if masks:
            polygons = [[polygon] for polygon in entry["polygons"]]
            target.add_field("masks", SegmentationMask(polygons, (width, height)))
        if semantic:
            labels = np.load(GOLDEN / "inputs.npz")[f"sem_seg{i}"]
            target.add_field("semantic", SemanticMap(torch.from_numpy(labels)))
        targets.append(target)
    return targets


class Detectron2Model:
    """Our model under a golden file's weights.

    Args:
        name: golden file without its suffix.
        cfg: of the model; the options of the golden's training are set in it, which change nothing in evaluation.
    """

    def __init__(self, name: str, cfg):
        self.golden = json.loads((GOLDEN / f"{name}.json").read_text())
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.cfg = cfg.clone()
        for key, value in self.golden["train_overrides"].items():
            self.cfg.merge_from_list([key, value])
        self.model = build_detection_model(self.cfg)
        self.model.load_state_dict(filled_state(self.model.state_dict()))

    @cached_property
    def pictures(self):
        """Two tensors (3, H, W)."""
        pictures = np.load(GOLDEN / "inputs.npz")
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (self.cfg.INPUT.PIXEL_MEAN, self.cfg.INPUT.PIXEL_STD))
        return [
            (torch.from_numpy(pictures[key][:, :, ::-1].copy()).permute(2, 0, 1).float() - mean) / std
            for key in ("image0_rgb", "image1_rgb")
        ]

    @cached_property
    def images(self):
        return to_image_list(self.pictures, self.cfg.DATALOADER.SIZE_DIVISIBILITY)

    @cached_property
    def fixed_rois(self):
        rois = np.load(GOLDEN / "inputs.npz")
        return [
            BoxList(rois[f"fixed_rois{i}"], (picture.shape[2], picture.shape[1]), box_offset=0)
            for i, picture in enumerate(self.pictures)
        ]

    @cached_property
    def targets(self):
        panoptic = self.cfg.MODEL.META_ARCHITECTURE == "PanopticFPN"
        return golden_targets(masks=self.cfg.MODEL.MASK_ON, semantic=panoptic)

    @cached_property
    def losses(self):
        """Losses of one batch; backward has run."""
        self.model.train().zero_grad()
        losses = self.model(self.images, self.targets)
        sum(losses.values()).backward()
        return losses


def check_tensor(tensor, recorded, what):
    assert list(tensor.shape) == recorded["shape"], what
    values = tensor.detach().reshape(-1)[fill_d2.pick(tensor.numel())].double().numpy()
    worst = np.abs(values - np.array(recorded["values"])).max()
    assert worst <= TENSOR * recorded["absmax"], f"{what}: {worst:.3g} off, largest value {recorded['absmax']:.3g}"
    assert abs(tensor.double().mean().item() - recorded["mean"]) <= TENSOR * recorded["absmax"], what


def check_scored_boxes(found: BoxList, boxes, scores, labels, what) -> list[int]:
    """One to one by label, in the recorded order but for scores that are all but equal.

    Args:
        found: with fields "scores" and "labels" in 1..K.
        boxes, scores, labels: the recorded arrays, labels in 0..K-1.

    Returns for each of ours the place of the recorded one.
    """
    assert len(found) == len(boxes), what
    ours = (found.bbox.numpy(), found.get_field("scores").numpy(), found.get_field("labels").numpy() - 1)
    left = set(range(len(boxes)))
    places = []
    for i, (box, score, label) in enumerate(zip(*ours, strict=True)):
        near = [
            j
            for j in left
            if labels[j] == label
            and abs(scores[j] - score) <= SCORE
            and np.abs(boxes[j] - box).max() <= BOX_PIXELS
            and (i == j or abs(scores[j] - scores[i]) <= SWAP)
        ]
        assert near, f"{what}: nothing recorded is like our number {i}: {label} {score} {box}"
        places.append(min(near, key=lambda j: abs(j - i)))
        left.remove(places[-1])
    return places


def check_losses(golden: Detectron2Model, names: dict[str, str]):
    """names: our name of each loss -> the recorded one."""
    recorded = golden.golden["train"]
    assert set(golden.losses) == set(names)
    for ours, theirs in names.items():
        value, wanted = golden.losses[ours].item(), recorded["losses"][theirs]
        assert abs(value - wanted) <= LOSS * abs(wanted), f"{ours}: {value} against {wanted}"
    gradients = {name: parameter.grad for name, parameter in golden.model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == recorded["params_without_grad"] == []
    gradients, _ = convert_state_dict(gradients, "detectron2")
    for name, entry in recorded["grad"].items():
        norm = gradients[name].double().norm().item()
        assert abs(norm - entry["norm"]) <= GRADIENT * entry["norm"], f"gradient of {name}: {norm}"
        values = gradients[name].reshape(-1)[fill_d2.pick(gradients[name].numel())].double().numpy()
        difference = np.linalg.norm(values - np.array(entry["values"]))
        assert difference <= GRADIENT * np.linalg.norm(entry["values"]), f"gradient of {name}"
    total = sum(gradient.double().pow(2).sum() for gradient in gradients.values()).sqrt().item()
    assert abs(total - recorded["total_grad_norm"]) <= GRADIENT * recorded["total_grad_norm"]
