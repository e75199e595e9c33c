"""Compare whole models with recorded outputs of the original programs for the same weights and images.

A golden file contains, for weights made by `fill.py`: 64 samples of each feature map and head output, the detections,
the losses and some gradient norms of two COCO images (inputs.npz, targets.json).
"""

from __future__ import annotations

import copy
import json
import math
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from helpers import fill
from helpers.initial_weights import zeros_instead_of_random_weights
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIGS = Path(__file__).parents[2] / "configs"

# Largest difference of a tensor, relative to the largest recorded value. Repeated runs of the originals themselves
# (1 against 2 threads) differ by 1e-6 to 1e-5.
TENSOR = 1e-4
LOSS = 1e-3
GRADIENT = 2e-2
BOX_PIXELS = 0.05
SCORE = 1e-4


def build_on_meta(config, opts=()):
    """Build the model of a file in configs/ and options on the meta device."""
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_file(str(CONFIGS / config))
    cfg.merge_from_list(list(opts))
    with torch.device("meta"):
        return build_detection_model(cfg)


def golden_targets(masks=False, keypoints=False):
    """Make ground truth of the two images: labels, and optionally masks and keypoints (of persons)."""
    targets = []
    for entry in json.loads((GOLDEN / "targets.json").read_text()):
        size = (entry["width"], entry["height"])
        target = BoxList(entry["boxes_xyxy"], size)
        target.add_field("labels", torch.tensor(entry["keypoint_labels" if keypoints else "labels"]))
        if masks:
            target.add_field("masks", SegmentationMask(entry["polygons"], size))
        if keypoints:
            target.add_field("keypoints", PersonKeypoints(torch.tensor(entry["keypoints"]), size))
        targets.append(target)
    return targets


class GoldenModel:
    """Our model with a golden file's weights.

    Args:
        name: golden file without its suffix.
        config: path of the YAML, relative to configs/.
        opts: KEY VALUE list on top of it.
    """

    def __init__(self, name: str, config: str, opts=()):
        self.golden = json.loads((GOLDEN / f"{name}.json").read_text())
        self.arrays = np.load(GOLDEN / f"{name}.npz")
        cfg = copy.deepcopy(defaults)
        cfg.merge_from_file(str(CONFIGS / config))
        # The training options sample every anchor and region, and change nothing in evaluation.
        cfg.merge_from_list([*opts, *self.golden["opts"], *self.golden.get("train_opts", [])])
        self.cfg = cfg
        with zeros_instead_of_random_weights():
            self.model = build_detection_model(cfg)
        state = self.model.state_dict()
        filled = fill.fill(state, self.golden["gains"], self.golden["bias_offsets"])
        self.model.load_state_dict({**state, **{key: torch.from_numpy(value) for key, value in filled.items()}})

    @cached_property
    def image_tensors(self):
        """Return two tensors (3, H, W), in the order of targets.json."""
        arrays = np.load(GOLDEN / "inputs.npz")
        mean = torch.tensor(self.golden["pixel_mean_bgr"]).view(3, 1, 1)
        return [
            torch.from_numpy(arrays[key][:, :, ::-1].copy()).permute(2, 0, 1).float() - mean
            for key in ("image0", "image1")
        ]

    @cached_property
    def images(self):
        return to_image_list(self.image_tensors, self.golden["size_divisibility"])

    def test_batches(self):
        """Return the inputs of each recorded forward pass: both images together, or one at a time."""
        count = len(self.golden["test"])
        batches = [self.image_tensors] if count == 1 else [[image] for image in self.image_tensors]
        return [to_image_list(batch, self.golden["size_divisibility"]) for batch in batches]

    @cached_property
    def targets(self):
        return golden_targets(masks=self.cfg.MODEL.MASK_ON, keypoints=self.cfg.MODEL.KEYPOINT_ON)

    def outputs(self):
        """Return body maps, FPN maps, head outputs and detections of the two images, in evaluation."""
        model = self.model.eval()
        with torch.no_grad():
            body = model.backbone.body(self.images.tensors)
            features = model.backbone.fpn(body)
            head = model.rpn.head(features)
            return body, features, head, model(self.images)

    def stages(self, images):
        """Return the outputs of a two-stage model's parts in evaluation, by their module names, and "detections"."""
        found = {}

        def record(name):
            return lambda module, inputs, output: found.update({name: output})

        hooks = [
            module.register_forward_hook(record(name))
            for name, module in self.model.named_modules()
            if name in ("backbone.body", "backbone", "rpn.head", "rpn") or name.endswith(".predictor")
        ]
        with torch.no_grad():
            found["detections"] = self.model.eval()(images)
        for hook in hooks:
            hook.remove()
        return found

    def losses(self):
        """Return losses and, after backward, gradients. Batch norms are in evaluation mode if the golden says so."""
        model = self.model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        model.zero_grad()
        losses = model(self.images, self.targets)
        sum(losses.values()).backward()
        return losses


def check_tensor(tensor, recorded, what, rows_that_may_swap=0):
    """Compare all samples; or all but a few, where rows are sorted by scores that differ only by rounding."""
    assert list(tensor.shape) == recorded["shape"], what
    values = tensor.detach().reshape(-1)[fill.sample_indices(tensor.numel())].double().numpy()
    difference = np.sort(np.abs(values - np.array(recorded["samples"])))
    worst = difference[: len(difference) - rows_that_may_swap].max()
    assert worst <= TENSOR * recorded["absmax"], f"{what}: {worst:.3g} off, largest value {recorded['absmax']:.3g}"
    assert abs(tensor.double().mean().item() - recorded["mean"]) <= TENSOR * recorded["absmax"], what


def check_proposals(proposals, recorded):
    """Compare the first twenty in order, and all of them together."""
    assert len(proposals) == recorded["n"] and list(proposals.size) == recorded["size_wh"]
    scores = proposals.get_field("objectness")
    np.testing.assert_allclose(scores[:20].numpy(), recorded["first20_objectness"], atol=SCORE)
    np.testing.assert_allclose(proposals.bbox[:20].numpy(), recorded["first20_boxes"], atol=BOX_PIXELS)
    assert abs(scores.double().sum().item() - recorded["objectness_sum"]) <= SCORE * recorded["n"]


def check_detections(detections, recorded, arrays):
    """Match detections one to one by label. Return for each of ours the index of the recorded one."""
    prefix = recorded["npz_prefix"]
    boxes, scores, labels = (arrays[prefix + part] for part in ("boxes", "scores", "labels"))
    assert len(detections) == recorded["n"] and list(detections.size) == recorded["size_wh"]
    ours_boxes = detections.bbox.numpy()
    ours_scores = detections.get_field("scores").numpy()
    ours_labels = detections.get_field("labels").numpy()
    left = set(range(len(labels)))
    places = []
    for i in range(len(ours_labels)):
        match = [
            j
            for j in left
            if labels[j] == ours_labels[i]
            and abs(scores[j] - ours_scores[i]) <= SCORE
            and np.abs(boxes[j] - ours_boxes[i]).max() <= BOX_PIXELS
        ]
        assert match, f"no recorded detection is like ours: {ours_labels[i]} {ours_scores[i]} {ours_boxes[i]}"
        places.append(min(match, key=lambda j: abs(scores[j] - ours_scores[i])))
        left.remove(places[-1])
    return places


def global_norm(gradients) -> float:
    """Return the norm of all gradients together, computed in float64."""
    return math.hypot(*(torch.linalg.vector_norm(gradient, dtype=torch.float64).item() for gradient in gradients))


def check_losses(model, losses, recorded):
    for name, value in recorded["losses"].items():
        assert abs(losses[name].item() - value) <= LOSS * abs(value), f"{name}: {losses[name].item()} against {value}"
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) == recorded["n_params_with_grad"]
    for name, value in recorded["grad_norms"].items():
        norm = torch.linalg.vector_norm(gradients[name], dtype=torch.float64).item()
        assert abs(norm - value) <= GRADIENT * value, f"gradient of {name}: {norm} against {value}"
    total = global_norm(gradients.values())
    assert abs(total - recorded["global_grad_norm"]) <= GRADIENT * recorded["global_grad_norm"]
