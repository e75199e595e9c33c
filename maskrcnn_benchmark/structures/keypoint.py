"""Keypoints of the objects of one image.

Shapes: N objects, K keypoints of each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, TO_REMOVE

# Words that stand for left and right in the names of keypoints.
SIDES = frozenset(("l", "r", "lt", "rt", "lft", "rgt", "lhs", "rhs", "links", "rechts"))
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


class Keypoints:
    """N times K keypoints, and named fields with one entry per object.

    Args:
        keypoints: (N, K, 3) tensor or nested list of x, y, visibility; stored as float32. With visibility 0, x and y
            are undefined.
        size: (width, height) of the image, in pixels.
        mode: unused, kept for callers of maskrcnn-benchmark.
        flip_inds: K indices: the keypoint that replaces each one in a flipped image (the left eye for the right one);
            None uses the class's FLIP_INDS.

    Raises:
        ValueError: keypoints have another shape, or flip_inds are not K indices.
    """

    FLIP_INDS: Sequence[int] | None = None
    # also on the class, for pickled objects of older versions
    flip_inds: Sequence[int] | None = None

    def __init__(self, keypoints, size, mode=None, flip_inds: Sequence[int] | None = None):
        device = keypoints.device if isinstance(keypoints, torch.Tensor) else torch.device("cpu")
        keypoints = torch.as_tensor(keypoints, dtype=torch.float32, device=device)
        self.flip_inds = self.FLIP_INDS if flip_inds is None else tuple(flip_inds)
        if keypoints.dim() == 1 and keypoints.numel() == 0:
            keypoints = keypoints.reshape(0, len(self.flip_inds or ()), 3)
        if keypoints.dim() != 3 or keypoints.shape[2] != 3:
            raise ValueError(f"Keypoints requires (N, K, 3): x, y, visibility; got {tuple(keypoints.shape)}")
        if flip_inds is not None and sorted(self.flip_inds) != list(range(keypoints.shape[1])):
            raise ValueError(f"flip_inds must permute {keypoints.shape[1]} keypoints, got {self.flip_inds}")
        self.keypoints = keypoints
        self.size = size
        self.mode = mode
        self.extra_fields: dict = {}

    def _like(self, keypoints: torch.Tensor, size) -> Keypoints:
        new = type(self)(keypoints, size, self.mode)
        new.flip_inds = self.flip_inds
        new.extra_fields.update(self.extra_fields)
        return new

    def resize(self, size, *args, **kwargs) -> Keypoints:
        """Scale the keypoints to an image of (width, height); coordinates are multiplied, not rounded."""
        ratio_x, ratio_y = (float(new) / float(old) for new, old in zip(size, self.size, strict=True))
        scaled = self.keypoints.clone()
        scaled[..., 0] *= ratio_x
        scaled[..., 1] *= ratio_y
        return self._like(scaled, size)

    def transpose(self, method: int, box_offset: float = TO_REMOVE) -> Keypoints:
        """Flip the keypoints (x -> W - x - box_offset), and swap left and right ones.

        Those with visibility 0 become zeros.

        Raises:
            NotImplementedError: method is not FLIP_LEFT_RIGHT.
            ValueError: flip_inds are not given.
        """
        if method != FLIP_LEFT_RIGHT:
            raise NotImplementedError(f"Keypoints.transpose supports FLIP_LEFT_RIGHT (0), got {method!r}")
        if self.flip_inds is None or len(self.flip_inds) != self.keypoints.shape[1]:
            raise ValueError(
                f"{self.keypoints.shape[1]} keypoints cannot be flipped, because their left-right pairs are unknown: "
                "give flip_inds (INPUT.KEYPOINT_FLIP_PAIRS), or name them with 'left' and 'right' in the dataset's "
                "categories"
            )
        mirrored = self.keypoints[:, list(self.flip_inds)]
        mirrored[..., 0] = self.size[0] - mirrored[..., 0] - box_offset
        mirrored[mirrored[..., 2] == 0] = 0
        return self._like(mirrored, self.size)

    def crop(self, box) -> Keypoints:
        """Return keypoints relative to the window box = (x1, y1, x2, y2); those outside become 0 (visibility 0)."""
        left, top, right, bottom = (float(side) for side in box)
        x, y, _ = self.keypoints.unbind(dim=2)
        outside = (x < left) | (x > right) | (y < top) | (y > bottom)
        moved = self.keypoints - self.keypoints.new_tensor([left, top, 0])
        moved[outside | (moved[..., 2] == 0)] = 0
        return self._like(moved, (box[2] - box[0], box[3] - box[1]))

    def to(self, *args, **kwargs) -> Keypoints:
        new = self._like(self.keypoints.to(*args, **kwargs), self.size)
        for name, data in self.extra_fields.items():
            new.add_field(name, data.to(*args, **kwargs) if hasattr(data, "to") else data)
        return new

    def pin_memory(self) -> Keypoints:
        new = self._like(self.keypoints.pin_memory(), self.size)
        for name, data in self.extra_fields.items():
            new.add_field(name, data.pin_memory() if hasattr(data, "pin_memory") else data)
        return new

    def __getitem__(self, item) -> Keypoints:
        """Select objects with their fields by a slice, index tensor or list, or bool mask."""
        new = self._like(self.keypoints[item], self.size)
        for name, data in self.extra_fields.items():
            new.add_field(name, data[item])
        return new

    def __len__(self) -> int:
        return self.keypoints.shape[0]

    def add_field(self, field: str, field_data) -> None:
        self.extra_fields[field] = field_data

    def get_field(self, field: str):
        """Return the field of that name; raise KeyError if it is missing."""
        return self.extra_fields[field]

    def has_field(self, field: str) -> bool:
        return field in self.extra_fields

    def __repr__(self) -> str:
        width, height = self.size
        count, points = self.keypoints.shape[:2]
        return (
            f"{type(self).__name__}(num_instances={count}, points={points}, image_width={width}, image_height={height})"
        )


def flip_inds_of(names: Sequence[str], flip_map: dict[str, str] | None = None) -> tuple[int, ...]:
    """Return the index of each keypoint's opposite; a keypoint without an opposite keeps its own.

    Args:
        names: names of the keypoints.
        flip_map: left name -> right name; None swaps "left" and "right" in the names.
    """
    if flip_map is None:
        opposite = {name: name.replace("left", "right") for name in names if "left" in name}
    else:
        opposite = dict(flip_map)
    opposite = {left: right for left, right in opposite.items() if right in names}
    opposite.update({right: left for left, right in opposite.items()})
    names = list(names)
    return tuple(names.index(opposite.get(name, name)) for name in names)


def flip_inds_from_names(names: Sequence[str]) -> tuple[int, ...] | None:
    """Return the index of each keypoint's opposite by "left" and "right" in the names, in any case.

    Returns:
        None if this would be a guess: no name has these words, or one with "left" has no partner with "right".
    """
    lower = [name.lower() for name in names]
    sided = [name for name in lower if "left" in name or "right" in name]
    partner = {name: name.replace("left", "\0").replace("right", "left").replace("\0", "right") for name in sided}
    if not sided or len(set(lower)) < len(lower) or any(other not in partner for other in partner.values()):
        return None
    return tuple(lower.index(partner.get(name, name)) for name in lower)


def names_have_sides(names: Sequence[str]) -> bool:
    """Check for a name that contains left or right, or a letter for them: "left_eye", "LeftEye", "L_0", "eyeR"."""
    words = (word.lower() for name in names for word in _WORD.findall(name))
    return any(word in SIDES or "left" in word or "right" in word for word in words)


def flip_inds_from_pairs(pairs: Sequence, count: int, names: Sequence[str] | None = None) -> tuple[int, ...]:
    """Return the index of the opposite of each of `count` keypoints; those in no pair keep their own.

    Args:
        pairs: pairs of names, or of indices from 0.
        names: names of the keypoints; None if they have none.

    Raises:
        ValueError: an entry is not a pair, a keypoint is unknown, or a keypoint is in two pairs.
    """
    if not isinstance(pairs, (list, tuple)):
        raise ValueError(f"{pairs!r} is not a list of pairs")
    places = list(range(count))
    taken: set[int] = set()
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"{pair!r} is not a pair of keypoints")
        found = []
        for keypoint in pair:
            if names is not None and keypoint in names:
                found.append(list(names).index(keypoint))
            elif isinstance(keypoint, int) and 0 <= keypoint < count:
                found.append(keypoint)
            else:
                known = f"{', '.join(names)}, or " if names else ""
                raise ValueError(f"keypoint {keypoint!r} is unknown; expected {known}the numbers 0 to {count - 1}")
        left, right = found
        if left in taken or right in taken:
            raise ValueError(f"a keypoint of {pair!r} is also in another pair")
        taken |= {left, right}
        places[left], places[right] = right, left
    return tuple(places)


def keypoint_sigmas_problem(sigmas: Sequence[float], count: int) -> str:
    """Return the problem with evaluating `count` keypoints by these sigmas; "" if there is none.

    Args:
        sigmas: standard deviation of each keypoint, relative to the object's size; one for all; or none for COCO's.
    """
    if not sigmas and count == len(PersonKeypoints.NAMES):
        return ""
    if not sigmas:
        return (
            f"objects have {count} keypoints, but COCO's evaluation only has standard deviations for the "
            f"{len(PersonKeypoints.NAMES)} of a person. Set DATASETS.KEYPOINT_SIGMAS to {count} numbers, or one for "
            "all, such as [0.05]."
        )
    if len(sigmas) not in (1, count):
        return f"objects have {count} keypoints, DATASETS.KEYPOINT_SIGMAS {len(sigmas)} numbers. Give {count}, or one."
    if not all(isinstance(sigma, (int, float)) and 0 < sigma < math.inf for sigma in sigmas):
        return f"DATASETS.KEYPOINT_SIGMAS is {tuple(sigmas)}; expected numbers above 0."
    return ""


def kp_connections(names: Sequence[str]) -> list[list[int]]:
    """Return the index pairs of the edges of a person's skeleton."""
    lines = [
        ("left_eye", "right_eye"),
        ("left_eye", "nose"),
        ("right_eye", "nose"),
        ("right_eye", "right_ear"),
        ("left_eye", "left_ear"),
        ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"),
        ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
        ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"),
        ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"),
        ("right_shoulder", "left_shoulder"),
        ("right_hip", "left_hip"),
    ]
    names = list(names)
    return [[names.index(a), names.index(b)] for a, b in lines]


class PersonKeypoints(Keypoints):
    """COCO's 17 keypoints of a person."""

    NAMES = [
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ]
    FLIP_MAP = {name: name.replace("left", "right") for name in NAMES if name.startswith("left")}
    FLIP_INDS = flip_inds = flip_inds_of(NAMES, FLIP_MAP)
    CONNECTIONS = kp_connections(NAMES)


def keypoints_to_heat_map(
    keypoints: torch.Tensor, rois: torch.Tensor, heatmap_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Convert keypoints to positions in a square heatmap over their region.

    Args:
        keypoints: (N, K, 3) x, y, visibility in pixels of the image.
        rois: (N, 4) xyxy; a point on the right or lower edge is in the last column or row.
        heatmap_size: pixels M a side.

    Returns:
        (place, valid), both (N, K) int64: row * M + column, and 1 for points that are visible and inside their region.
        For other points both are 0.
    """
    if rois.numel() == 0:
        empty = torch.zeros((0, keypoints.shape[1]), dtype=torch.int64, device=rois.device)
        return empty, empty.clone()
    x1, y1, x2, y2 = rois[:, :, None].unbind(dim=1)
    x, y, visibility = keypoints.unbind(dim=2)
    column = ((x - x1) * (heatmap_size / (x2 - x1))).floor()
    row = ((y - y1) * (heatmap_size / (y2 - y1))).floor()
    column = torch.where(x == x2, heatmap_size - 1, column)
    row = torch.where(y == y2, heatmap_size - 1, row)
    inside = (column >= 0) & (row >= 0) & (column < heatmap_size) & (row < heatmap_size)
    valid = inside & (visibility > 0)
    # Values of points outside may exceed an integer (a region without width divides by zero).
    place = torch.where(valid, row * heatmap_size + column, 0)
    return place.to(torch.int64), valid.to(torch.int64)
