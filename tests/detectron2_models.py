"""Compares models of the detectron2 convention with what detectron2 computed from the same weights and pictures.

A golden file holds, for weights that `fill_d2.py` makes from detectron2's names: 64 samples of each map and head
output, proposals, detections, losses and gradients of two pictures (d2/inputs.npz, d2/inputs.json).
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path

import fill_d2
import numpy as np
import torch

from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.semantic_map import SemanticMap

GOLDEN = Path(__file__).parent / "golden" / "d2"

# Largest difference of a tensor as a part of the recorded largest value, and relative ones of losses and gradients.
TENSOR = 1e-4
LOSS = 1e-4
GRADIENT = 2e-2
BOX_PIXELS = 0.05
SCORE = 1e-4
# scores closer than this may come in another order
SWAP = 1e-5

# our name -> detectron2's
NAMES = (
    (r"^backbone\.body\.", "backbone.bottom_up."),
    (r"^rpn\.head\.conv\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_heads\.box\.feature_extractor\.fc6\.", "roi_heads.box_head.fc1."),
    (r"^roi_heads\.box\.feature_extractor\.fc7\.", "roi_heads.box_head.fc2."),
    (r"^roi_heads\.box\.predictor\.", "roi_heads.box_predictor."),
    (r"^roi_heads\.mask\.feature_extractor\.", "roi_heads.mask_head."),
    (r"^roi_heads\.mask\.predictor\.conv5_mask\.", "roi_heads.mask_head.deconv."),
    (r"^roi_heads\.mask\.predictor\.mask_fcn_logits\.", "roi_heads.mask_head.predictor."),
)


def detectron2_name(name: str) -> str:
    name = re.sub(r"^backbone\.fpn\.fpn_inner(\d)", lambda m: f"backbone.fpn_lateral{int(m[1]) + 1}", name)
    name = re.sub(r"^backbone\.fpn\.fpn_layer(\d)", lambda m: f"backbone.fpn_output{int(m[1]) + 1}", name)
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def background_last(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Our rows as detectron2 has them: the background last in cls_score, and none in what only objects have."""
    if ".box_predictor.cls_score." in name:
        return tensor.roll(-1, dims=0)
    if ".box_predictor.bbox_pred." in name:
        return tensor[4:]
    return tensor[1:] if ".mask_head.predictor." in name else tensor


def background_first(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """detectron2's rows as we have them; those of the background that nobody reads are zero."""
    if ".box_predictor.cls_score." in name:
        return tensor.roll(1, dims=0)
    rows = 4 if ".box_predictor.bbox_pred." in name else 1 if ".mask_head.predictor." in name else 0
    return torch.cat((torch.zeros_like(tensor[:rows]), tensor))


def filled_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The golden weights under our names, for the keys of `state`."""
    filled = {}
    for key, tensor in state.items():
        name = detectron2_name(key)
        value = fill_d2.value(name, background_last(name, tensor).shape)
        filled[key] = tensor if value is None else background_first(name, torch.from_numpy(value))
    return filled


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
    gradients = {
        detectron2_name(name): background_last(detectron2_name(name), parameter.grad)
        for name, parameter in golden.model.named_parameters()
    }
    assert [name for name, gradient in gradients.items() if gradient is None] == recorded["params_without_grad"]
    for name, entry in recorded["grad"].items():
        norm = gradients[name].double().norm().item()
        assert abs(norm - entry["norm"]) <= GRADIENT * entry["norm"], f"gradient of {name}: {norm}"
        values = gradients[name].reshape(-1)[fill_d2.pick(gradients[name].numel())].double().numpy()
        difference = np.linalg.norm(values - np.array(entry["values"]))
        assert difference <= GRADIENT * np.linalg.norm(entry["values"]), f"gradient of {name}"
    total = sum(gradient.double().pow(2).sum() for gradient in gradients.values()).sqrt().item()
    assert abs(total - recorded["total_grad_norm"]) <= GRADIENT * recorded["total_grad_norm"]
