"""Run an exported model with only numpy and onnxruntime or openvino. This file can be copied and used on its own.

    model = Model("model.onnx")          # or model.xml
    prediction = model(image)            # (H, W, 3) uint8 RGB; or a path, where Pillow is installed
    prediction.boxes, prediction.scores, prediction.names

Shapes: N objects, K keypoints of each, H x W pixels of the original image, h x w of the network input, B images of a
batch, M pixels per side of a mask, C semantic classes.
"""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import dataclass

import numpy as np

KEY = "maskrcnn_benchmark"
ENGINES = {".onnx": "onnxruntime", ".xml": "openvino"}


@dataclass
class Prediction:
    """Objects, segments and classes found in one image, in pixels of the original image.

    Attributes:
        size: (width, height) of the original image.
        boxes: (N, 4) float32 x1, y1, x2, y2, best score first. scores: (N,) float32. labels: (N,) int64, 1..
        names, category_ids: of the labels, N each.
        masks: N COCO run lengths {"size": [H, W], "counts": text}, mask_scores: (N,) float32; None for models without.
        keypoints: (N, K, 3) float32 x, y, 1, and keypoint_scores: (N, K) float32 logits; None without keypoints.
        semantic_map: (H, W) uint8 classes. panoptic_map: (H, W) int32, k + 1 where segments[k] is. None without.
        segments: dicts with "label", "is_thing", "name", "category_id", and for things "score".
    """

    size: tuple
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: list
    category_ids: list
    masks: list | None = None
    mask_scores: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    keypoint_scores: np.ndarray | None = None
    semantic_map: np.ndarray | None = None
    panoptic_map: np.ndarray | None = None
    segments: list | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def mask_arrays(self) -> np.ndarray:
        """Decode the masks to (N, H, W) bool."""
        arrays = np.zeros((len(self), *self.size[::-1]), dtype=bool)
        for array, mask in zip(arrays, self.masks, strict=True):
            counts, number, shift = [], 0, 0
            for digit in mask["counts"].encode():
                number, shift = number | (digit - 48 & 31) << shift, shift + 5
                if not digit - 48 & 32:
                    number -= (1 << shift) if digit - 48 & 16 else 0
                    counts.append(number + (counts[-2] if len(counts) > 2 else 0))
                    number, shift = 0, 0
            array[:] = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(self.size).T
        return arrays


class Model:
    """Exported model. engine: "onnxruntime" or "openvino", None chooses by suffix. providers: for onnxruntime."""

    def __init__(self, path, engine=None, threads=None, providers=("CPUExecutionProvider",)):
        path = os.fspath(path)
        engine = engine or ENGINES.get(os.path.splitext(path)[1], "onnxruntime")
        for part in [path, path[:-4] + ".bin"][: 1 + path.endswith(".xml")]:
            if not os.path.isfile(part):
                raise FileNotFoundError(f"there is no file {part}")
        module = importlib.import_module(engine)
        try:
            text = getattr(self, f"_open_{engine}")(module, path, threads, providers)
        except Exception as error:
            raise ValueError(f"{path} is damaged, or no model for {engine}: {error}") from error
        self._take_metadata(path, text)

    def _take_metadata(self, path, text):
        if not text:
            raise ValueError(f"{path} has no metadata of maskrcnn_benchmark: export the model by tools/export.py")
        self.path, self.metadata = path, json.loads(text)

    def _open_onnxruntime(self, onnxruntime, path, threads, providers):
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, threads or 0
        session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        self._run = lambda feeds: session.run(None, feeds)
        return session.get_modelmeta().custom_metadata_map.get(KEY)

    def _open_openvino(self, openvino, path, threads, providers):
        network = openvino.Core().read_model(path)
        options = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        compiled = openvino.Core().compile_model(network, "CPU", options | {"INFERENCE_PRECISION_HINT": "f32"})
        self._run = lambda feeds: list(compiled(feeds).values())
        return network.get_rt_info([KEY]).astype(str) if network.has_rt_info([KEY]) else None

    def run(self, images, sizes, original_sizes=None) -> dict:
        """Run the network alone: (B, h, w, 3) uint8, (B, 2) int64 (height, width) -> its outputs by name."""
        # OpenVINO would turn floats of 0..1 into zeros
        feeds = {"images": images.astype(np.uint8, casting="equiv", copy=False), "sizes": np.asarray(sizes, np.int64)}
        if "original_sizes" in self.metadata["inputs"]:
            feeds["original_sizes"] = np.asarray(sizes if original_sizes is None else original_sizes, dtype=np.int64)
        return dict(zip(self.metadata["outputs"], self._run(feeds), strict=True))

    def __call__(self, images):
        """Predict one image, or a list of them: (H, W, 3) uint8 RGB arrays, or paths where Pillow is installed."""
        if self.metadata["form"] != "whole":
            raise ValueError(f"{self.path} holds the dense part of a model: its outputs are maps, see run()")
        if isinstance(images, (list, tuple)):
            return [self(image) for image in images]
        is_path = isinstance(images, (str, os.PathLike))
        image = np.asarray(_read(images, self.metadata["upright"]) if is_path else images)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"an image is a path or (H, W, 3) uint8 RGB, got {image.dtype} of shape {image.shape}")
        batch, size = self.prepare(image)
        outputs = self.run(batch, [size] * len(batch), [image.shape[:2]] * len(batch))
        return self.predict({name: value[0] for name, value in outputs.items()}, size, image.shape[:2])

    def prepare(self, image):
        """Resize and pad (H, W, 3) uint8 to (B, h, w, 3), B 1 or fixed; return it and the unpadded (height, width)."""
        data = self.metadata
        size = target_size(image.shape[:2], data["min_size"], data["max_size"], data["resize_to_nearest"])
        padded, divisor = data["fixed_size"], max(data["size_divisible"], 1)
        if padded is not None and (size[0] > padded[0] or size[1] > padded[1]):
            scale = min(padded[0] / image.shape[0], padded[1] / image.shape[1])
            size = tuple(max(min(int(side * scale), most), 1) for side, most in zip(image.shape, padded, strict=False))
        if padded is None:
            padded = [-(-max(*each) // divisor) * divisor for each in zip(size, data["pad_to"] or (1, 1), strict=True)]
        batch = np.zeros((data["batch"] or 1, *padded, 3), dtype=np.uint8)
        batch[0, : size[0], : size[1]] = resize(image, size)
        return batch, size

    def predict(self, outputs, size, original) -> Prediction:
        """Turn one image's outputs into a Prediction; size and original are (height, width)."""
        data, (height, width), count = self.metadata, original, int(outputs.get("count", 0))
        boxes = outputs.get("boxes", np.zeros((0, 4), dtype=np.float32))[:count]
        scores, labels = (outputs.get(name, np.zeros(0))[:count] for name in ("scores", "labels"))
        ratio = np.float32([width / size[1], height / size[0]])
        boxes = boxes * np.tile(ratio, 2)
        kept = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] - boxes[:, :2] + data["box_offset"] > 0).all(axis=1)
        boxes, scores, labels = boxes[kept], scores[kept].astype(np.float32), labels[kept].astype(np.int64)
        names = [[data[kind][k - 1] for k in labels.tolist()] for kind in ("class_names", "category_ids")]
        found = Prediction((width, height), boxes, scores, labels, *names)
        if "masks" in outputs:
            windows = [self._paste(*each, original) for each in zip(outputs["masks"][:count][kept], boxes, strict=True)]
            found.masks = [encode(*window, height, width) for window in windows]
            found.mask_scores = outputs["mask_scores"][:count][kept] if "mask_scores" in outputs else None
        if "keypoints" in outputs:
            points = outputs["keypoints"][:count][kept]
            found.keypoint_scores = points[:, :, 2].copy()
            found.keypoints = np.concatenate((points[:, :, :2] * ratio, np.ones_like(points[:, :, 2:])), axis=2)
        if "semantic" in outputs:
            logits = outputs["semantic"][:, : size[0], : size[1]]
            found.semantic_map = enlarge(logits, original).argmax(axis=0).astype(np.uint8)
            if data["merge"]:
                found.panoptic_map, found.segments = self._merge(found, windows)
        return found

    def _paste(self, mask, box, original):
        """Place a mask (M, M) in the image: (h, w) bool, left, top."""
        aligned, side = self.metadata["mask_pasting"]["aligned"], len(mask)
        border = 1 if aligned else self.metadata["mask_pasting"]["padding"]
        mask = np.pad(mask.astype(np.float32), border)
        box = np.clip(box, -(2.0**30), 2.0**30).astype(np.float32)
        if not aligned:
            half = (box[2:] - box[:2]) * np.float32(0.5) * np.float32((side + 2 * border) / side)
            box = np.repeat((box[None, 2:] + box[:2]) * np.float32(0.5), 2, axis=0).ravel() + np.append(-half, half)
        axis = _sample if aligned else _stretch
        (left, *columns), (top, *rows) = (axis(box[k], box[k + 2], original[1 - k], len(mask)) for k in (0, 1))
        values = _mix(_mix(mask, 1, *columns), 0, *rows)
        return (values >= 0.5) if aligned else (values > 0.5), left, top

    def _merge(self, found, windows):
        """Assign pixels to things in descending order of scores, then the rest to stuff (Panoptic FPN, section 3)."""
        data, rules = self.metadata, self.metadata["merge"]
        ids, segments = np.zeros(found.semantic_map.shape, dtype=np.int32), []
        for label, score, (mask, left, top) in zip(found.labels.tolist(), found.scores.tolist(), windows, strict=True):
            window = ids[top : top + mask.shape[0], left : left + mask.shape[1]]
            free = mask & (window == 0)
            area, rest = int(mask.sum()), int(free.sum())
            if score >= rules["score"] and area > 0 and area - rest <= rules["overlap"] * area:
                segments.append({"label": label, "is_thing": True, "score": score})
                window[free] = len(segments)
        stuff = np.where(ids == 0, found.semantic_map, 0)
        areas = np.bincount(stuff.ravel(), minlength=1)
        for label in (np.flatnonzero(areas[1:] >= max(rules["stuff_area"], 1)) + 1).tolist():
            segments.append({"label": label, "is_thing": False})
            ids[stuff == label] = len(segments)
        for each in segments:
            kinds = ("class_names", "category_ids") if each["is_thing"] else ("semantic_names", "semantic_ids")
            each["name"], each["category_id"] = (data[kind][each["label"] - each["is_thing"]] for kind in kinds)
        return ids, segments


def target_size(size, min_size, max_size, to_nearest: bool):
    """Return the (height, width) that an image of `size` is resized to; min_size None changes nothing."""
    height, width, short, long = *size, min(size), max(size)
    if min_size is None:
        return height, width
    if to_nearest:
        scale = min(min_size / short, max_size / long)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)
    side = max(round(max_size * short / long) if long / short * min_size > max_size else min_size, 1)
    if side == short:
        return height, width
    return (int(side * height / width), side) if width < height else (side, int(side * width / height))


def resize(image, size):
    """Resize (H, W, 3) uint8 to (height, width) by area-weighted bilinear interpolation, as Pillow does."""
    for axis in (axis for axis in (1, 0) if image.shape[axis] != size[axis]):
        scale = image.shape[axis] / size[axis]
        reach = max(scale, 1.0)
        center = (np.arange(size[axis]) + 0.5) * scale
        first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
        end = np.minimum((center + reach + 0.5).astype(np.int64), image.shape[axis])
        at = first[:, None] + np.arange((end - first).max())
        weights = np.maximum(1 - np.abs((at + 0.5 - center[:, None]) / reach), 0) * (at < end[:, None])
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)[:, :, None]
        total = np.float32(0.5)
        for tap in range(at.shape[1]):
            line = np.minimum(at[:, tap], image.shape[axis] - 1)
            total = total + image.take(line, axis=axis) * (weights[:, tap] if axis else weights[:, tap, None])
        image = np.clip(total, 0, 255).astype(np.uint8)
    return image


def enlarge(maps, size):
    """Resize maps (C, h, w) to (height, width) bilinearly, pixel centers at half-integers."""
    for axis, pixels in ((1, size[0]), (2, size[1])):
        count = maps.shape[axis]
        if count != pixels:
            at = np.maximum((np.arange(pixels, dtype=np.float32) + 0.5) * np.float32(count / pixels) - 0.5, 0)
            low = at.astype(np.int64)
            maps = _mix(maps, axis, low, np.minimum(low + 1, count - 1), (at - low).astype(np.float32))
    return maps


def _mix(values, axis, low, high, fraction):
    fraction = fraction.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    return values.take(low, axis=axis) * (1 - fraction) + values.take(high, axis=axis) * fraction


def _stretch(low, high, pixels, lines):
    """Map one axis of a box of whole pixels to `lines` mask lines: first pixel, and low, high, fraction of _mix."""
    first, last = int(low), int(high)
    start = min(max(first, 0), pixels)
    at = np.arange(start, max(min(last + 1, pixels), start))
    scale = np.float32(lines) / np.float32(max(last - first + 1, 1))
    at = np.maximum(((at - first).astype(np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    index = np.minimum(at.astype(np.int64), lines - 1)
    return start, index, np.minimum(index + 1, lines - 1), np.minimum(at - index, 1).astype(np.float32)


def _sample(low, high, pixels, lines):
    """Map one axis of a box in continuous coordinates, filled by all but the first and last of `lines` lines."""
    size, length = lines - 2, high - low
    fade = length / (2 * size)
    start = min(max(int(np.floor(low - fade)) - 1, 0), pixels)
    end = max(min(int(np.ceil(high + fade)) + 1, pixels), start) if length > 0 else start
    unit = (np.arange(start, end).astype(np.float32) + np.float32(0.5) - low) / length * 2 - 1
    at = np.clip(((unit + 1) * size - 1) / 2, -1, size).astype(np.float32)
    index = np.floor(at).astype(np.int64) + 1
    return start, index, np.minimum(index + 1, lines - 1), (at - index + 1).astype(np.float32)


def encode(window, left, top, height, width) -> dict:
    """Encode a mask (h, w) bool at (left, top) of an image as COCO's compressed run lengths."""
    image = np.zeros((width, height), dtype=bool)
    image[left : left + window.shape[1], top : top + window.shape[0]] = window.T
    borders = np.flatnonzero(np.diff(image.ravel(), prepend=False))
    counts = np.diff(np.concatenate(([0], borders, [height * width]))).tolist()
    text = []
    for place, number in enumerate(counts):
        number -= counts[place - 2] if place > 2 else 0
        more = True
        while more:
            digit, number = number & 31, number >> 5
            more = number != (-1 if digit & 16 else 0)
            text.append(chr((digit | 32 * more) + 48))
    return {"size": [height, width], "counts": "".join(text)}


def _read(path, upright: bool):
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(f"reading {path} needs Pillow; without it, pass an array (H, W, 3) uint8 RGB") from error
    with Image.open(path) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"{path} has more than 8 bits a channel: convert it to an array (H, W, 3) uint8 RGB")
        return np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))
