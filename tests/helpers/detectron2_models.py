"""Compare models of the detectron2 convention with recorded outputs of detectron2 for the same weights and images.

A golden file contains, for weights that `fill_d2.py` makes from detectron2's names: 64 samples of each map and head
output, proposals, detections, losses and gradients of two images (d2/inputs.npz, d2/inputs.json).
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from helpers import fill_d2
from helpers.golden_models import global_norm
from helpers.initial_weights import zeros_instead_of_random_weights
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.semantic_map import SemanticMap

GOLDEN = Path(__file__).parents[1] / "golden" / "d2"

# Largest difference of a tensor, relative to the largest recorded value; relative differences of losses and gradients.
TENSOR = 1e-4
LOSS = 1e-4
GRADIENT = 2e-2
BOX_PIXELS = 0.05
SCORE = 1e-4
# Closer scores may be swapped.
SWAP = 1e-5


def filled_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Make the golden weights from detectron2's names and shapes, for the keys of `state`, which are ours."""
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
    """Our model with a golden file's weights.

    Args:
        name: golden file without its suffix.
        cfg: config of the model. The golden's training options, which do not affect evaluation, are set in it.
    """

    def __init__(self, name: str, cfg):
        self.golden = json.loads((GOLDEN / f"{name}.json").read_text())
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        self.cfg = cfg.clone()
        for key, value in self.golden["train_overrides"].items():
            self.cfg.merge_from_list([key, value])
        with zeros_instead_of_random_weights():
            self.model = build_detection_model(self.cfg)
        self.model.load_state_dict(filled_state(self.model.state_dict()))

    @cached_property
    def image_tensors(self):
        """Return two tensors (3, H, W)."""
        arrays = np.load(GOLDEN / "inputs.npz")
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (self.cfg.INPUT.PIXEL_MEAN, self.cfg.INPUT.PIXEL_STD))
        return [
            (torch.from_numpy(arrays[key][:, :, ::-1].copy()).permute(2, 0, 1).float() - mean) / std
            for key in ("image0_rgb", "image1_rgb")
        ]

    @cached_property
    def images(self):
        return to_image_list(self.image_tensors, self.cfg.DATALOADER.SIZE_DIVISIBILITY)

    @cached_property
    def fixed_rois(self):
        rois = np.load(GOLDEN / "inputs.npz")
        return [
            BoxList(rois[f"fixed_rois{i}"], (image.shape[2], image.shape[1]), box_offset=0)
            for i, image in enumerate(self.image_tensors)
        ]

    @cached_property
    def targets(self):
        panoptic = self.cfg.MODEL.META_ARCHITECTURE == "PanopticFPN"
        return golden_targets(masks=self.cfg.MODEL.MASK_ON, semantic=panoptic)

    @cached_property
    def losses(self):
        """Return the losses of one batch, after backward."""
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
    """Match boxes one to one by label, in the recorded order except for almost equal scores.

    Args:
        found: BoxList with the fields "scores" and "labels" in 1..K.
        boxes, scores, labels: the recorded arrays, labels in 0..K-1.

    Returns:
        For each of ours the index of the recorded one.
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
    """Compare losses and gradients. names: our name of each loss -> the recorded one."""
    recorded = golden.golden["train"]
    assert set(golden.losses) == set(names)
    for ours, theirs in names.items():
        value, expected = golden.losses[ours].item(), recorded["losses"][theirs]
        assert abs(value - expected) <= LOSS * abs(expected), f"{ours}: {value} against {expected}"
    gradients = {name: parameter.grad for name, parameter in golden.model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == recorded["params_without_grad"] == []
    gradients, _ = convert_state_dict(gradients, "detectron2")
    for name, entry in recorded["grad"].items():
        norm = torch.linalg.vector_norm(gradients[name], dtype=torch.float64).item()
        assert abs(norm - entry["norm"]) <= GRADIENT * entry["norm"], f"gradient of {name}: {norm}"
        values = gradients[name].reshape(-1)[fill_d2.pick(gradients[name].numel())].double().numpy()
        difference = np.linalg.norm(values - np.array(entry["values"]))
        assert difference <= GRADIENT * np.linalg.norm(entry["values"]), f"gradient of {name}"
    total = global_norm(gradients.values())
    assert abs(total - recorded["total_grad_norm"]) <= GRADIENT * recorded["total_grad_norm"]
