"""Result of predicting one image.

Shapes: N objects, K keypoints of each, H x W pixels of the original image.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image

from maskrcnn_benchmark.data.datasets.images import read_image
from maskrcnn_benchmark.structures.bounding_box import TO_REMOVE, BoxList
from maskrcnn_benchmark.structures.label_names import LabelNames
from maskrcnn_benchmark.structures.packed_map import PackedMap
from maskrcnn_benchmark.structures.panoptic_map import PanopticMap
from maskrcnn_benchmark.structures.rle import decode_counts, parse_counts
from maskrcnn_benchmark.utils.text_file import nearest_name
from maskrcnn_benchmark.visual.drawing import draw_boxes, draw_masks, draw_segments, save_image
from maskrcnn_benchmark.visual.keypoints import draw_keypoints


@dataclass(repr=False, eq=False)
class Prediction:
    """Objects, segments and semantic classes of one image, in pixels of the original image.

    Attributes:
        size: (width, height) of the original image, after EXIF rotation if the model's input was rotated.
        boxes: (N, 4) float32 x1, y1, x2, y2, in descending order of scores.
        scores: (N,) float32, 0..1.
        labels: (N,) int64 from 1; label k is class_names[k - 1].
        label_names: LabelNames of the model.
        masks: N COCO RLEs {"size": [H, W], "counts": text}; None if the model predicts no masks.
        mask_scores: (N,) float32, score times predicted mask IoU, not limited to 0..1; None without a MaskIoU head.
        keypoints: (N, K, 3) float32 x, y, visibility; None if the model predicts no keypoints.
        keypoint_scores: (N, K) float32 logits; None if the model predicts no keypoints.
        track_ids: (N,) int64 object numbers in a video, 0 for untracked objects; None without a tracker.
        semantic: PackedMap of semantic classes, see `semantic_map`; None if the model predicts none.
        panoptic: PanopticMap of segments, see `segments`; None if the model predicts none.
        path: path of the image file, if there is one.
        box_offset: width of a box minus (x2 - x1) in the model's convention, see BoxList.
        upright, value_range: how the file was read, see `datasets.images.read_image`.

    Pickles do not include the image.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    label_names: LabelNames = field(default_factory=LabelNames)
    masks: list[dict] | None = None
    mask_scores: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    keypoint_scores: np.ndarray | None = None
    track_ids: np.ndarray | None = None
    semantic: PackedMap | None = None
    panoptic: PanopticMap | None = None
    path: str | None = None
    box_offset: float = TO_REMOVE
    upright: bool = True
    value_range: tuple[float, float] | None = None
    _image: np.ndarray | Image.Image | torch.Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.boxes)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_image": None}

    def __repr__(self) -> str:
        name = "" if self.path is None else f"{os.path.basename(self.path)}, "
        parts = [f"{name}{self.size[0]} x {self.size[1]} pixels"]
        if self.label_names.class_names or len(self):
            by_class: dict[str, list[str]] = {}
            for each, score in zip(self.names, self.scores.tolist(), strict=True):
                by_class.setdefault(each, []).append(f"{score:.2f}")
            found = [
                f"{len(scores)} {each} ({', '.join(scores[:3])}{', ...' if len(scores) > 3 else ''})"
                for each, scores in by_class.items()
            ]
            parts.append(f"{len(self)} object{'' if len(self) == 1 else 's'}: {', '.join(found)}".rstrip(": "))
        if self.panoptic is not None:
            counted = Counter(segment["name"] for segment in self.segments)
            parts.append(f"segments: {', '.join(f'{number} {each}' for each, number in counted.items())}")
        elif self.semantic is not None:
            parts.append(f"semantic classes: {', '.join(self.semantic_classes)}")
        extras = [name for name in ("masks", "keypoints") if getattr(self, name) is not None]
        return f"Prediction({'; '.join([*parts, *extras])})"

    # ---- names

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of all classes of the model."""
        return self.label_names.class_names

    @property
    def names(self) -> list[str]:
        """Class names of the N objects."""
        known = self.label_names.class_names
        return [known[k - 1] if k <= len(known) else str(k) for k in self.labels.tolist()]

    @property
    def category_ids(self) -> list:
        """Category ids of the N objects, as in the annotations that the model was trained on."""
        known = self.label_names.category_ids
        return [known[k - 1] if k <= len(known) else k for k in self.labels.tolist()]

    # ---- masks and maps

    def mask_arrays(self) -> np.ndarray:
        """Decode the masks to (N, H, W) bool.

        Raises:
            ValueError: the model predicts no masks.
        """
        if self.masks is None:
            raise ValueError("the model predicts no masks (MODEL.MASK_ON False)")
        width, height = self.size
        decoded = np.zeros((len(self), height, width), dtype=bool)
        for mask, rle in zip(decoded, self.masks, strict=True):
            mask[:] = decode_counts(parse_counts(rle["counts"], rle["size"]), height, width)
        return decoded

    @property
    def semantic_map(self) -> np.ndarray | None:
        """Semantic classes (H, W) uint8, indices into label_names.semantic_names; None if the model predicts none."""
        return None if self.semantic is None else self.semantic.unpack()

    @property
    def semantic_classes(self) -> list[str]:
        """Names of the semantic classes in the image, in descending order of area."""
        if self.semantic is None:
            return []
        counts = np.bincount(self.semantic.unpack().ravel())
        return [_named(self.label_names.semantic_names, int(k)) for k in np.argsort(-counts) if counts[k]]

    @property
    def panoptic_map(self) -> np.ndarray | None:
        """Segment numbers (H, W): k + 1 for segments[k], 0 for no segment; None if the model predicts none."""
        return None if self.panoptic is None else self.panoptic.unpack()

    @property
    def segments(self) -> list[dict]:
        """Panoptic segments as dicts: "label", "is_thing", "name", "category_id", and "score" for things."""
        described = []
        for segment in [] if self.panoptic is None else self.panoptic.segments:
            label, names = segment["label"], self.label_names
            if segment["is_thing"]:
                name, number = _named(names.class_names, label - 1), _named(names.category_ids, label - 1)
            else:
                name, number = _named(names.semantic_names, label), _named(names.semantic_ids, label)
            described.append({**segment, "name": name, "category_id": number})
        return described

    # ---- selection

    def filter(self, score: float | Mapping[str, float] | None = None, classes: Sequence | None = None) -> Prediction:
        """Select objects by score and class; maps do not change.

        Args:
            score: minimum score, or a mapping from class names to minimum scores. Other classes keep all objects.
            classes: names or labels of the classes to keep; None keeps all.

        Raises:
            ValueError: the model has no such class.
        """
        keep = np.ones(len(self), dtype=bool)
        by_class = isinstance(score, Mapping)
        if score is not None:
            keep &= self.scores >= (thresholds_by_label(score, self.class_names)[self.labels] if by_class else score)
        if classes is not None:
            given = [classes] if isinstance(classes, (str, int)) else classes
            keep &= np.isin(self.labels, [label_of(each, self.class_names) for each in given])
        return self.select(keep)

    def select(self, keep) -> Prediction:
        """Select objects by a mask (N,) bool or by indices; maps do not change."""
        keep = np.asarray(keep)
        chosen = np.flatnonzero(keep) if keep.dtype == bool else keep.astype(np.int64)
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            masks=None if self.masks is None else [self.masks[i] for i in chosen.tolist()],
            mask_scores=None if self.mask_scores is None else self.mask_scores[chosen],
            keypoints=None if self.keypoints is None else self.keypoints[chosen],
            keypoint_scores=None if self.keypoint_scores is None else self.keypoint_scores[chosen],
            track_ids=None if self.track_ids is None else self.track_ids[chosen],
        )

    # ---- other forms

    def to_coco(self, image_id=0) -> list[dict]:
        """Return one COCO result entry per object.

        Keys are image_id, category_id, score and bbox (x, y, width, height), and segmentation, mask_score and
        keypoints if the model predicts them. Numbers are not rounded.
        """
        corners = self.boxes.astype(np.float32)
        sides = corners[:, 2:] - corners[:, :2] + np.float32(self.box_offset)
        entries = [
            {"image_id": image_id, "category_id": number, "score": score, "bbox": box}
            for number, score, box in zip(
                self.category_ids,
                self.scores.tolist(),
                np.concatenate((corners[:, :2], sides), axis=1).tolist(),
                strict=True,
            )
        ]
        for name, values in (
            ("segmentation", self.masks),
            ("mask_score", None if self.mask_scores is None else self.mask_scores.tolist()),
            ("keypoints", None if self.keypoints is None else self.keypoints.reshape(len(self), -1).tolist()),
        ):
            for entry, value in zip(entries, values or (), strict=False):
                entry[name] = value
        return entries

    def to_boxlist(self) -> BoxList:
        """Convert to a BoxList with the fields "labels" and "scores", and "track_ids" with a tracker."""
        boxlist = BoxList(torch.from_numpy(self.boxes.copy()), self.size, box_offset=self.box_offset)
        boxlist.add_field("labels", torch.from_numpy(self.labels.copy()))
        boxlist.add_field("scores", torch.from_numpy(self.scores.copy()))
        if self.track_ids is not None:
            boxlist.add_field("track_ids", torch.from_numpy(self.track_ids.copy()))
        return boxlist

    def to_supervision(self):
        """Convert to supervision.Detections, with label - 1 as class_id and the names in data["class_name"].

        Raises:
            ImportError: the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "Prediction.to_supervision needs the package supervision: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            mask=None if self.masks is None else self.mask_arrays(),
            confidence=self.scores.copy(),
            class_id=self.labels - 1,
            data={"class_name": np.array(self.names, dtype=object)},
        )

    # ---- drawing

    def image(self) -> np.ndarray:
        """Return the pixels of the image, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: the image came from memory and was not kept, see `Predictor.stream`.
        """
        if self._image is not None:
            if isinstance(self._image, torch.Tensor):
                return self._image.permute(1, 2, 0).contiguous().numpy()
            return np.asarray(self._image)
        if self.path is None:
            raise ValueError("this prediction has neither a file nor an image in memory: pass the image to draw()")
        return np.asarray(read_image(self.path, self.upright, self.value_range))

    def draw(self, image: np.ndarray | Image.Image | None = None, score: float = 0.0, font_size: int = 13):
        """Draw the objects on the image, or the segments if the model predicts segments.

        Args:
            image: (H, W, 3) uint8 RGB or a PIL image; None uses the predicted image.
            score: minimum score of the drawn objects.
            font_size: height of the text in pixels.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            ValueError: no image is given, and the predicted image is not available.
        """
        pixels = self.image() if image is None else np.asarray(image)
        if self.panoptic is not None:
            names = [segment["name"] for segment in self.segments]
            labels = self.panoptic.classes(len(self.class_names)) + 1
            return draw_segments(pixels, self.panoptic.unpack(), names, labels, font_size)
        if self.semantic is not None:
            found = np.unique(self.semantic.unpack())
            numbers = np.searchsorted(found, self.semantic.unpack()) + 1
            names = [_named(self.label_names.semantic_names, int(k)) for k in found]
            return draw_segments(pixels, numbers.astype(np.int32), names, found.astype(int) + 1, font_size)
        chosen = self.filter(score=score) if score > 0 else self
        if chosen.masks is not None:
            pixels = draw_masks(pixels, chosen.mask_arrays(), chosen.labels)
        if chosen.keypoints is not None:
            pixels = draw_keypoints(pixels, chosen.keypoints, chosen.keypoint_scores)
        return draw_boxes(pixels, chosen.to_boxlist(), self.class_names, font_size=font_size)

    def save(self, path: str | os.PathLike, score: float = 0.0, font_size: int = 13) -> None:
        """Write the drawn image to a file, in the format of its extension (.png, .jpg, ...).

        Args:
            path: file to write.
            score, font_size: see `draw`.

        Raises:
            ValueError: the predicted image is not available, or the extension is not an image format.
        """
        save_image(self.draw(score=score, font_size=font_size), path)


def label_of(given: str | int, class_names: Sequence[str]) -> int:
    """Return the label of a class name; check a label and return it unchanged.

    Raises:
        ValueError: there is no such class. The message suggests the nearest name.
    """
    if isinstance(given, str):
        if given in class_names:
            return list(class_names).index(given) + 1
        near = nearest_name(given, list(class_names))
        hint = f"; nearest is {near!r}" if near else ""
        raise ValueError(f"the model has no class {given!r}{hint}. Its classes are: {', '.join(class_names)}")
    if not 1 <= int(given) <= len(class_names):
        raise ValueError(f"labels must be 1 to {len(class_names)}, got {given}")
    return int(given)


def thresholds_by_label(score: Mapping[str, float], class_names: Sequence[str]) -> np.ndarray:
    """Convert score thresholds by class to an array by label.

    Args:
        score: mapping from class names or labels to thresholds; other classes get 0.

    Returns:
        (len(class_names) + 1,) float32. Entry 0 is unused.

    Raises:
        ValueError: the model has no such class, or a threshold is not in [0, 1].
    """
    thresholds = np.zeros(len(class_names) + 1, dtype=np.float32)
    for given, threshold in score.items():
        thresholds[label_of(given, class_names)] = threshold
    if not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError(f"score thresholds must be from 0 to 1, got {score!r}")
    return thresholds


def _named(names: Sequence, index: int):
    return names[index] if 0 <= index < len(names) else str(index)
