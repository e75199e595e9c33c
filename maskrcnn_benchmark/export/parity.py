"""Compare an exported model with its eager source model, on real images."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.data.datasets.images import read_image
from maskrcnn_benchmark.data.transforms.transforms import Resize, to_pixels
from maskrcnn_benchmark.engine.predictor_setup import PredictorSetup
from maskrcnn_benchmark.engine.run_model import run_model
from maskrcnn_benchmark.engine.semantic_views import SegmentByViews
from maskrcnn_benchmark.export.runtime import Model
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList

BOX_LIMIT = 1e-2  # pixels of the network input
SCORE_LIMIT = 1e-4
MASK_LIMIT = 1e-3
# Keypoints are where a heatmap is largest. Where two pixels are equally large, rounding decides between them.
KEYPOINT_SHARE = 0.01
SEMANTIC_SHARE = 1e-3
MAP_LIMIT = 1e-3  # of a map's standard deviation


@dataclass
class Parity:
    """Differences between an eager and an exported model, over all images.

    Attributes:
        detections: number of detections of the eager model.
        missing: number of detections that only one of the models has.
        on_edge: number of these whose score is within SCORE_LIMIT of the score threshold, or of the lowest score if
            all detection slots are used. Rounding decides about them.
        box, score, mask, keypoint_score: largest differences. `score` includes mask scores.
        keypoints, keypoints_apart: number of keypoints, and of those more than BOX_LIMIT apart.
        pixels, pixels_apart: number of pixels, and of those with another semantic class.
        maps: largest difference of a dense part's outputs, in standard deviations of the map; None for whole models.
        non_finite: names of the exported model's outputs with NaN or infinite values.
        eager_seconds, seconds: seconds in the eager and in the exported model, one entry per image.
    """

    images: int = 0
    detections: int = 0
    missing: int = 0
    on_edge: int = 0
    box: float = 0.0
    score: float = 0.0
    mask: float = 0.0
    keypoint_score: float = 0.0
    keypoints: int = 0
    keypoints_apart: int = 0
    pixels: int = 0
    pixels_apart: int = 0
    maps: float | None = None
    has_masks: bool = False
    non_finite: set[str] = field(default_factory=set)
    eager_seconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def failures(self) -> list[str]:
        """Describe each exceeded limit."""
        found = []
        if self.non_finite:
            found.append(f"the exported model returns NaN or infinity in {', '.join(sorted(self.non_finite))}")
        if self.missing > self.on_edge:
            found.append(f"{self.missing - self.on_edge} of {self.detections} detections differ in number or label")
        for name, value, limit, unit in (
            ("boxes", self.box, BOX_LIMIT, " pixels"),
            ("scores", self.score, SCORE_LIMIT, ""),
            ("masks", self.mask, MASK_LIMIT, ""),
        ):
            if not value <= limit:
                found.append(f"{name} differ by {value:.1e}{unit}, the limit is {limit:.0e}")
        if self.maps is not None and not self.maps <= MAP_LIMIT:
            found.append(f"maps differ by {self.maps:.1e} of their standard deviation, the limit is {MAP_LIMIT:.0e}")
        if self.keypoints_apart > KEYPOINT_SHARE * self.keypoints:
            found.append(f"{self.keypoints_apart} of {self.keypoints} keypoints are apart")
        if not np.isfinite(self.keypoint_score):
            found.append(f"logits of keypoints differ by {self.keypoint_score}")
        if self.pixels_apart > SEMANTIC_SHARE * self.pixels:
            found.append(f"{self.pixels_apart} of {self.pixels} pixels have another class")
        return found

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        lines = [f"images                {self.images}"]
        if self.maps is not None:
            lines.append(f"largest difference    {self.maps:.1e} standard deviations of a map")
        elif self.detections or self.missing:
            lines += [
                f"detections            {self.detections}, missing or additional {self.missing}"
                + (f" ({self.on_edge} with a score on a threshold)" if self.on_edge else ""),
                f"largest difference    boxes {self.box:.1e} pixels, scores {self.score:.1e}"
                + (f", masks {self.mask:.1e}" if self.has_masks else ""),
            ]
        elif not self.pixels:
            lines.append("detections            none: give --images with objects, or a lower score threshold")
        if self.keypoints:
            lines.append(
                f"keypoints             {self.keypoints}, apart {self.keypoints_apart}; "
                f"largest difference of logits {self.keypoint_score:.1e}"
            )
        if self.pixels:
            lines.append(f"pixels                {self.pixels}, of another class {self.pixels_apart}")
        eager, ours = np.median(self.eager_seconds), np.median(self.seconds)
        lines.append(f"time for an image     {ours * 1e3:.0f} ms, eager {eager * 1e3:.0f} ms (medians, network alone)")
        return lines


def compare(setup: PredictorSetup, model: Model, images: Sequence) -> Parity:
    """Run both models on images, one by one.

    Args:
        setup: the eager model, in float32 on the CPU.
        model: the exported one.
        images: paths, or arrays (H, W, 3) uint8 RGB.
    """
    parity = Parity()
    for given in images:
        _compare_image(setup, model, _pixels(given, setup), parity)
    return parity


@torch.inference_mode()
def compare_maps(setup: PredictorSetup, model: Model, images: Sequence, part: torch.nn.Module) -> Parity:
    """Run a DensePart and its exported form on images, one by one; arguments are those of `compare`."""
    parity = Parity(maps=0.0)
    for pixels in (_pixels(given, setup) for given in images):
        batch, size = model.prepare(pixels.permute(1, 2, 0).numpy())
        sizes = np.array([size] * len(batch))
        start = time.perf_counter()
        expected = part(torch.from_numpy(batch), torch.from_numpy(sizes))
        middle = time.perf_counter()
        found = model.run(batch, sizes)
        parity.seconds.append(time.perf_counter() - middle)
        parity.eager_seconds.append(middle - start)
        parity.images += 1
        for name, ours in zip(part.names, expected, strict=True):
            # one value has no deviation
            scale = float(ours.std() if ours.numel() > 1 else ours.abs().max())
            difference = np.abs(ours.numpy() - found[name]).max() / max(scale, 1e-6)
            parity.maps = _larger(parity.maps, float(difference))
    return parity


def _larger(known: float, new: float) -> float:
    """Return the larger difference, or NaN if one of them is NaN, which `max` may drop."""
    return float(np.maximum(known, new))


def _check_finite(name: str, values: np.ndarray, parity: Parity) -> None:
    """Record an output with NaN or infinite values, which the shares and `on_edge` would excuse as rounding."""
    if not np.isfinite(values).all():
        parity.non_finite.add(name)


def _pixels(given, setup: PredictorSetup) -> Tensor:
    """Return (3, H, W) uint8 of a path or an array."""
    if isinstance(given, (str, os.PathLike)):
        return to_pixels(read_image(os.fspath(given), setup.upright, setup.value_range))
    return torch.from_numpy(np.array(given)).permute(2, 0, 1)


def _compare_image(setup: PredictorSetup, model: Model, pixels: Tensor, parity: Parity) -> None:
    height, width = pixels.shape[1:]
    resize = next((step for step in setup.transform.transforms if isinstance(step, Resize)), None)
    resized = pixels if resize is None else resize(pixels)
    size = tuple(resized.shape[1:])
    batch, expected = model.prepare(pixels.permute(1, 2, 0).numpy())
    if expected != size:
        raise ValueError(
            f"the configuration resizes an image of {width} x {height} to {size[1]} x {size[0]}, the exported model to "
            f"{expected[1]} x {expected[0]}; give images that fit into its fixed size"
        )
    # the same pixels for both: the runtime's own resizing may differ by 1 of 255
    batch[0, : size[0], : size[1]] = resized.permute(1, 2, 0).numpy()
    normalized = setup.transform(pixels)
    padded = ImageList(normalized.new_zeros((1, 3, *batch.shape[1:3])), [size])
    padded.tensors[0, :, : size[0], : size[1]] = normalized
    network = setup.model
    if isinstance(network, SegmentByViews):
        network = network.model  # the views cut the padding off, and large images into windows
    start = time.perf_counter()
    with torch.inference_mode():
        (eager,) = run_model(network, padded, [(width, height)])
    middle = time.perf_counter()
    outputs = model.run(batch, np.array([size] * len(batch)), np.array([[height, width]] * len(batch)))
    parity.seconds.append(time.perf_counter() - middle)
    parity.eager_seconds.append(middle - start)
    parity.images += 1
    outputs = {name: value[0] for name, value in outputs.items()}
    if "boxes" in outputs:
        _compare_detections(eager, outputs, model.metadata["thresholds"], parity)
    if "semantic" in outputs:
        _check_finite("semantic", outputs["semantic"][:, : size[0], : size[1]], parity)
        found = model.predict(outputs, size, (height, width)).semantic_map
        parity.pixels += found.size
        parity.pixels_apart += int((found != eager.get_field("semantic").unpack()).sum())


def _compare_detections(eager: BoxList, outputs: dict, thresholds: dict, parity: Parity) -> None:
    count = int(outputs["count"])
    for name in outputs.keys() - {"count", "semantic"}:
        _check_finite(name, outputs[name][:count], parity)
    boxes, labels, scores = (outputs[name][:count] for name in ("boxes", "labels", "scores"))
    ours = eager.convert("xyxy").bbox.numpy()
    name = "scores" if eager.has_field("scores") else "objectness"
    our_scores = eager.get_field(name).numpy()
    our_labels = eager.get_field("labels").numpy() if eager.has_field("labels") else np.ones(len(ours), dtype=np.int64)
    pairs, lonely = match(ours, our_labels, our_scores, boxes, labels, scores)
    parity.detections += len(ours)
    edges = [thresholds.get("score", -1.0)]
    if count and count >= thresholds.get("detections", count + 1):
        edges.append(float(scores.min()))
    parity.missing += len(lonely)
    parity.on_edge += sum(any(abs(score - edge) <= SCORE_LIMIT for edge in edges) for score in lonely)
    if not len(pairs):
        return
    first, second = pairs.T
    parity.box = _larger(parity.box, float(np.abs(ours[first] - boxes[second]).max()))
    parity.score = _larger(parity.score, float(np.abs(our_scores[first] - scores[second]).max()))
    if eager.has_field("mask"):
        parity.has_masks = True
        masks = eager.get_field("mask")[:, 0].float().numpy()
        parity.mask = _larger(parity.mask, float(np.abs(masks[first] - outputs["masks"][second]).max()))
    if eager.has_field("mask_scores"):
        mask_scores = np.abs(eager.get_field("mask_scores").float().numpy()[first] - outputs["mask_scores"][second])
        parity.score = _larger(parity.score, float(mask_scores.max()))
    if eager.has_field("keypoints"):
        points = eager.get_field("keypoints")
        found = outputs["keypoints"][second]
        apart = np.abs(points.keypoints.numpy()[first][:, :, :2] - found[:, :, :2]).max(axis=2)
        parity.keypoints += apart.size
        parity.keypoints_apart += int((~(apart <= BOX_LIMIT)).sum())
        logits = np.abs(points.get_field("logits").numpy()[first] - found[:, :, 2])
        parity.keypoint_score = _larger(parity.keypoint_score, float(logits.max()))


def match(boxes, labels, scores, other_boxes, other_labels, other_scores) -> tuple[np.ndarray, list[float]]:
    """Pair detections of two models with the same label, nearest boxes and scores first.

    Detections are not paired if the largest difference of their corners in pixels plus that of their scores exceeds 1.

    Returns:
        Pairs of indices (P, 2), and the scores of the unpaired detections of both models.
    """
    distance = np.abs(boxes[:, None] - other_boxes[None]).max(axis=2, initial=0) + np.abs(
        scores[:, None] - other_scores[None]
    )
    distance[labels[:, None] != other_labels[None]] = np.inf
    pairs, taken, others = [], set(), set()
    for place in np.argsort(distance, axis=None, kind="stable"):
        first, second = np.unravel_index(place, distance.shape)
        if distance[first, second] > 1:
            break
        if first not in taken and second not in others:
            pairs.append((first, second))
            taken.add(first)
            others.add(second)
    lonely = [float(score) for k, score in enumerate(scores) if k not in taken]
    lonely += [float(score) for k, score in enumerate(other_scores) if k not in others]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), lonely
