"""Merge the detections of overlapping windows of a large image.

Shapes: D detections of all windows together, G groups of detections, one group per object.

A detection is "cut" if it touches a border of its window that is not a border of the image: the object may continue
beyond it. Two detections of two windows are the same object if they have the same class and overlap in the area that
both windows share. An object is represented by its best detection that is not cut and contains the others. If there is
none, it becomes the union of its detections. A prediction of the whole image adds the objects that fit into no window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from maskrcnn_benchmark.engine.prediction import Prediction
from maskrcnn_benchmark.structures.box_arrays import areas, intersections
from maskrcnn_benchmark.structures.rle import decode_counts, encode_window, parse_counts

Window = tuple[int, int, int, int]

# Minimum IoU of two detections of the same object, within the area that both windows share.
SAME = 0.5
# Minimum share of a detection's area inside another detection that contains it.
PART = 0.7
# Maximum distance at which a box touches a border, the larger of: pixels, and a share of the window's side.
TOUCHES, TOUCHES_SHARE = 2.0, 0.01


def check_tiles(side: int, overlap: float) -> None:
    """Raise ValueError if windows of `side` pixels with this overlap are not possible; side 0 means no windows."""
    if side != 0 and side < 32 or not 0 <= overlap < 1:
        raise ValueError(
            f"tiles must be 0 or at least 32 pixels, and overlap must be in [0, 1); got {side} and {overlap}"
        )


def windows_of(size: tuple[int, int], side: int, overlap: float) -> list[Window]:
    """Cover an image (width, height) with windows (left, top, right, bottom) of at most side x side pixels.

    Neighbours overlap by at least the share `overlap`. All windows have the same size. The last window of each row and
    column ends at the border of the image.
    """
    lefts, tops = (_starts(length, side, overlap) for length in size)
    return [(left, top, min(left + side, size[0]), min(top + side, size[1])) for top in tops for left in lefts]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / max(side * (1 - overlap), 1))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def merge_windows(
    found: Sequence[Prediction], windows: Sequence[Window], size: tuple[int, int], whole: Prediction | None = None
) -> Prediction:
    """Merge the predictions of the windows of an image.

    Args:
        found: one prediction per window, in pixels of the window.
        windows: windows of `windows_of`.
        size: (width, height) of the image.
        whole: prediction of the whole image, which adds objects that fit into no window.

    Returns:
        Prediction in pixels of the image, in descending order of scores. Each object has the keypoints of its best
        detection.
    """
    moved = _Detections(found, windows, size)
    groups = moved.groups()
    chosen = [moved.object_of(members) for members in groups]
    if whole is not None:
        chosen = _with_whole(chosen, whole, windows)
    chosen = _without_parts(chosen)
    chosen.sort(key=lambda each: -each[0].scores[0])
    return _joined([each for each, _ in chosen], found[0], size)


class _Detections:
    """Detections of all windows, in pixels of the image.

    Attributes:
        boxes: (D, 4) x1, y1, x2, y2.
        labels, scores: (D,).
        window: (D,) index of the window.
        place: (D,) index within the prediction of the window.
        cut: (D,) bool.
    """

    def __init__(self, found: Sequence[Prediction], windows: Sequence[Window], size: tuple[int, int]):
        self.found, self.windows, self.size = found, windows, size
        counts = [len(each) for each in found]
        self.window = np.repeat(np.arange(len(found)), counts)
        self.place = np.concatenate([np.arange(count) for count in counts]) if counts else np.zeros(0, dtype=int)
        offsets = np.array([window[:2] * 2 for window in windows], dtype=np.float32)
        self.boxes = np.concatenate([each.boxes for each in found]) + offsets[self.window]
        self.labels = np.concatenate([each.labels for each in found])
        self.scores = np.concatenate([each.scores for each in found])
        corners = np.array(windows, dtype=np.float32)
        inner = corners != np.array([0, 0, *size], dtype=np.float32)
        sides = corners[:, 2:] - corners[:, :2]
        margin = np.maximum(TOUCHES, TOUCHES_SHARE * np.tile(sides, 2))
        distance = np.abs(self.boxes - corners[self.window])
        self.cut = ((distance <= margin[self.window]) & inner[self.window]).any(axis=1)

    def groups(self) -> list[list[int]]:
        """Group the detections by object; return G lists with at most one detection per window."""
        group = list(range(len(self.boxes)))  # of each detection
        members = {k: [k] for k in group}
        seen = {k: {int(self.window[k])} for k in group}
        starts = np.searchsorted(self.window, np.arange(len(self.windows) + 1))
        pairs = []
        for i, one in enumerate(self.windows):
            for j in range(i + 1, len(self.windows)):
                common = _common(one, self.windows[j])
                if common is not None:
                    pairs += self._same(range(*starts[i : i + 2]), range(*starts[j : j + 2]), common)
        for _, a, b in sorted(pairs, key=lambda pair: -pair[0]):
            first, second = group[a], group[b]
            if first == second or seen[first] & seen[second]:
                continue
            for k in members[second]:
                group[k] = first
            members[first] += members.pop(second)
            seen[first] |= seen.pop(second)
        return list(members.values())

    def _same(self, first: range, second: range, common: Window) -> list[tuple[float, int, int]]:
        """Return (IoU within `common`, detection, detection) for each pair that is the same object."""
        if not len(first) or not len(second):
            return []
        a, b = (_clipped(self.boxes[list(each)], common) for each in (first, second))
        overlap = intersections(a, b)
        union = areas(a)[:, None] + areas(b) - overlap
        iou = np.where(union > 0, overlap / np.maximum(union, 1e-9), 0)
        iou[self.labels[list(first)][:, None] != self.labels[list(second)][None]] = 0
        return [(float(iou[i, j]), first[i], second[j]) for i, j in zip(*np.nonzero(iou >= SAME), strict=True)]

    def object_of(self, members: list[int]) -> tuple[Prediction, bool]:
        """Merge a group into one object; return a prediction with this object, and whether it is cut."""
        members = sorted(members, key=lambda k: -self.scores[k])
        whole = [k for k in members if not self.cut[k] and self._covers_the_others(k, members)]
        if whole:
            return self._moved(whole[:1]), False
        return self._moved(members), bool(self.cut[members].all())

    def _covers_the_others(self, k: int, members: list[int]) -> bool:
        boxes = self.boxes[members]
        inside = intersections(boxes, self.boxes[k : k + 1])[:, 0]
        return bool((inside >= PART * areas(boxes)).all())

    def _moved(self, members: list[int]) -> Prediction:
        """Return the union of detections in pixels of the image; `members` are in descending order of scores."""
        best = members[0]
        one = self.found[self.window[best]].select([self.place[best]])
        boxes = self.boxes[members]
        left, top = self.windows[self.window[best]][:2]
        keypoints = None if one.keypoints is None else one.keypoints + np.array([left, top, 0], dtype=np.float32)
        return replace(
            one,
            size=self.size,
            boxes=np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))[None],
            masks=None if one.masks is None else [self._mask(members)],
            keypoints=keypoints,
        )

    def _mask(self, members: list[int]) -> dict:
        """Return the union of masks as an RLE of the image."""
        corners = np.array([self.windows[self.window[k]] for k in members])
        left, top = corners[:, :2].min(axis=0).tolist()
        right, bottom = corners[:, 2:].max(axis=0).tolist()
        union = np.zeros((bottom - top, right - left), dtype=np.uint8)
        for k, (x1, y1, x2, y2) in zip(members, corners.tolist(), strict=True):
            rle = self.found[self.window[k]].masks[self.place[k]]
            mask = decode_counts(parse_counts(rle["counts"], rle["size"]), y2 - y1, x2 - x1)
            union[y1 - top : y2 - top, x1 - left : x2 - left] |= mask
        return encode_window(union, left, top, self.size[1], self.size[0])


def _with_whole(chosen: list, whole: Prediction, windows: Sequence[Window]) -> list:
    """Add the objects of the whole image that fit into no window, and remove their parts."""
    corners = np.array(windows, dtype=np.float32)
    for k in range(len(whole)):
        box = whole.boxes[k]
        if ((corners[:, :2] <= box[:2]) & (corners[:, 2:] >= box[2:])).all(axis=1).any():
            continue
        parts = [i for i, (each, cut) in enumerate(chosen) if _is_part(each, cut, whole, k)]
        chosen = [each for i, each in enumerate(chosen) if i not in parts]
        chosen.append((whole.select([k]), False))
    return chosen


def _is_part(each: Prediction, cut: bool, whole: Prediction, k: int) -> bool:
    if each.labels[0] != whole.labels[k]:
        return False
    inside = float(intersections(each.boxes, whole.boxes[k : k + 1])[0, 0])
    area, area_of_whole = float(areas(each.boxes)[0]), float(areas(whole.boxes[k : k + 1])[0])
    return inside >= SAME * (area + area_of_whole - inside) or cut and inside >= PART * min(area, area_of_whole)


def _without_parts(chosen: list) -> list:
    """Remove cut objects that lie inside a larger object of the same class: they are parts of it."""
    boxes = np.concatenate([each.boxes for each, _ in chosen]) if chosen else np.zeros((0, 4))
    labels = np.array([each.labels[0] for each, _ in chosen])
    sizes = areas(boxes)
    kept = []
    for i, (each, cut) in enumerate(chosen):
        if cut:
            inside = intersections(boxes, boxes[i : i + 1])[:, 0]
            others = (labels == labels[i]) & (sizes > sizes[i]) & (np.arange(len(boxes)) != i)
            if (others & (inside >= PART * sizes[i])).any():
                continue
        kept.append((each, cut))
    return kept


def _joined(objects: list[Prediction], like: Prediction, size: tuple[int, int]) -> Prediction:
    empty = replace(like.select(np.zeros(0, dtype=int)), size=size)
    if not objects:
        return empty
    fields = {
        name: None if getattr(empty, name) is None else np.concatenate([getattr(each, name) for each in objects])
        for name in ("boxes", "scores", "labels", "mask_scores", "keypoints", "keypoint_scores")
    }
    masks = None if empty.masks is None else [each.masks[0] for each in objects]
    return replace(empty, masks=masks, **fields)


def _common(a: Window, b: Window) -> Window | None:
    left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _clipped(boxes: np.ndarray, window: Window) -> np.ndarray:
    low, high = np.array(window[:2] * 2), np.array(window[2:] * 2)
    return boxes.clip(low, high)
