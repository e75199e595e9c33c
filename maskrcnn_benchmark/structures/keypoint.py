"""Keypoints of the objects of one picture.

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
    """N times K keypoints and named fields with one entry an object.

    Args:
        keypoints: (N, K, 3) tensor or nested list of x, y, visibility; kept as float32. Visibility 0 says that x and
            y mean nothing.
        size: (width, height) of the picture, in pixels.
        mode: not used, kept for callers of maskrcnn-benchmark.
        flip_inds: K indices, the keypoint that takes each one's place in a mirrored picture (the left eye for the
            right one); None takes the class's FLIP_INDS.

    Raises:
        ValueError: keypoints have another shape, or flip_inds are not K indices.
    """

    FLIP_INDS: Sequence[int] | None = None
    # of the class too, for objects in files that older programs wrote
    flip_inds: Sequence[int] | None = None

    def __init__(self, keypoints, size, mode=None, flip_inds: Sequence[int] | None = None):
        device = keypoints.device if isinstance(keypoints, torch.Tensor) else torch.device("cpu")
        keypoints = torch.as_tensor(keypoints, dtype=torch.float32, device=device)
        self.flip_inds = self.FLIP_INDS if flip_inds is None else tuple(flip_inds)
        if keypoints.dim() == 1 and keypoints.numel() == 0:
            keypoints = keypoints.reshape(0, len(self.flip_inds or ()), 3)
        if keypoints.dim() != 3 or keypoints.shape[2] != 3:
            raise ValueError(f"Keypoints wants (N, K, 3): x, y, visibility; got {tuple(keypoints.shape)}")
        if flip_inds is not None and sorted(self.flip_inds) != list(range(keypoints.shape[1])):
            raise ValueError(f"flip_inds has to order {keypoints.shape[1]} keypoints, got {self.flip_inds}")
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
        """Keypoints of the picture resized to (width, height); coordinates are multiplied, not rounded."""
        ratio_x, ratio_y = (float(new) / float(old) for new, old in zip(size, self.size, strict=True))
        scaled = self.keypoints.clone()
        scaled[..., 0] *= ratio_x
        scaled[..., 1] *= ratio_y
        return self._like(scaled, size)

    def transpose(self, method: int, box_offset: float = TO_REMOVE) -> Keypoints:
        """Keypoints of the mirrored picture (x -> W - x - box_offset), where left ones become right ones.

        Those with visibility 0 get zeros.

        Raises:
            NotImplementedError: another method than FLIP_LEFT_RIGHT.
            ValueError: which keypoint is opposite to which is not known.
        """
        if method != FLIP_LEFT_RIGHT:
            raise NotImplementedError(f"Keypoints.transpose knows FLIP_LEFT_RIGHT (0), got {method!r}")
        if self.flip_inds is None or len(self.flip_inds) != self.keypoints.shape[1]:
            raise ValueError(
                f"{self.keypoints.shape[1]} keypoints cannot be mirrored without knowing which of them change places: "
                "give flip_inds (INPUT.KEYPOINT_FLIP_PAIRS), or name them with 'left' and 'right' in the dataset's "
                "categories"
            )
        mirrored = self.keypoints[:, list(self.flip_inds)]
        mirrored[..., 0] = self.size[0] - mirrored[..., 0] - box_offset
        mirrored[mirrored[..., 2] == 0] = 0
        return self._like(mirrored, self.size)

    def crop(self, box) -> Keypoints:
        """Keypoints relative to the window box = (x1, y1, x2, y2); those outside become zeros (visibility 0)."""
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
        """The objects that item (slice, index tensor or list, bool mask) picks, with their fields."""
        new = self._like(self.keypoints[item], self.size)
        for name, data in self.extra_fields.items():
            new.add_field(name, data[item])
        return new

    def __len__(self) -> int:
        return self.keypoints.shape[0]

    def add_field(self, field: str, field_data) -> None:
        self.extra_fields[field] = field_data

    def get_field(self, field: str):
        """The field of that name; KeyError when there is none."""
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
    """The place of each keypoint's opposite; one without an opposite keeps its own.

    Args:
        names: of the keypoints.
        flip_map: left name -> right name; None exchanges "left" and "right" in the names.
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
    """The place of each keypoint's opposite by "left" and "right" in the names, in any case.

    Returns None where that is a guess: no name has these words, or one with "left" has no partner with "right".
    """
    lower = [name.lower() for name in names]
    sided = [name for name in lower if "left" in name or "right" in name]
    partner = {name: name.replace("left", "\0").replace("right", "left").replace("\0", "right") for name in sided}
    if not sided or len(set(lower)) < len(lower) or any(other not in partner for other in partner.values()):
        return None
    return tuple(lower.index(partner.get(name, name)) for name in lower)


def names_have_sides(names: Sequence[str]) -> bool:
    """Whether a name speaks of left or right, if only by a letter: "left_eye", "LeftEye", "L_0", "eyeR"."""
    words = (word.lower() for name in names for word in _WORD.findall(name))
    return any(word in SIDES or "left" in word or "right" in word for word in words)


def flip_inds_from_pairs(pairs: Sequence, count: int, names: Sequence[str] | None = None) -> tuple[int, ...]:
    """The place of each of `count` keypoints' opposite; those in no pair keep their own.

    Args:
        pairs: of names, or of indices from 0.
        names: of the keypoints; None where they have none.

    Raises:
        ValueError: a pair is no pair, names an unknown keypoint, or one keypoint is in two pairs.
    """
    if not isinstance(pairs, (list, tuple)):
        raise ValueError(f"{pairs!r} is no list of pairs")
    places = list(range(count))
    taken: set[int] = set()
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"{pair!r} is no pair of keypoints")
        found = []
        for keypoint in pair:
            if names is not None and keypoint in names:
                found.append(list(names).index(keypoint))
            elif isinstance(keypoint, int) and 0 <= keypoint < count:
                found.append(keypoint)
            else:
                known = f"{', '.join(names)}, or " if names else ""
                raise ValueError(f"keypoint {keypoint!r} is unknown; there are {known}the numbers 0 to {count - 1}")
        left, right = found
        if left in taken or right in taken:
            raise ValueError(f"a keypoint of {pair!r} is in another pair too")
        taken |= {left, right}
        places[left], places[right] = right, left
    return tuple(places)


def keypoint_sigmas_problem(sigmas: Sequence[float], count: int) -> str:
    """What keeps `count` keypoints from being evaluated with these sigmas; "" where nothing does.

    Args:
        sigmas: standard deviations by keypoint, relative to the object's size; one serves all, none stands for COCO's.
    """
    if not sigmas and count == len(PersonKeypoints.NAMES):
        return ""
    if not sigmas:
        return (
            f"objects have {count} keypoints, and COCO's evaluation has standard deviations for a person's "
            f"{len(PersonKeypoints.NAMES)} only. Set DATASETS.KEYPOINT_SIGMAS to {count} numbers, or to one for all, "
            "such as [0.05]."
        )
    if len(sigmas) not in (1, count):
        return f"objects have {count} keypoints, DATASETS.KEYPOINT_SIGMAS {len(sigmas)} numbers. Give {count}, or one."
    if not all(isinstance(sigma, (int, float)) and 0 < sigma < math.inf for sigma in sigmas):
        return f"DATASETS.KEYPOINT_SIGMAS is {tuple(sigmas)}. Give numbers above 0."
    return ""


def kp_connections(names: Sequence[str]) -> list[list[int]]:
    """The index pairs between which a person's skeleton is drawn."""
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
    """The place of each keypoint in a square heat map over its region.

    Args:
        keypoints: (N, K, 3) x, y, visibility in pixels of the picture.
        rois: (N, 4) xyxy; a point on the right or lower edge is in the last column or row.
        heatmap_size: pixels M a side.

    Returns (place, valid), both (N, K) int64: row * M + column, and 1 where the point is visible and inside its region
    (elsewhere both are 0).
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
    # numbers of points outside may not fit an integer (a region without width divides by zero)
    place = torch.where(valid, row * heatmap_size + column, 0)
    return place.to(torch.int64), valid.to(torch.int64)
