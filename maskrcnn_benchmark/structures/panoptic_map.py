"""Non-overlapping segments of one image, things and stuff (Kirillov et al., CVPR 2019).

Shapes: H x W pixels of an image, S segments.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image

from maskrcnn_benchmark.structures.packed_map import PackedMap
from maskrcnn_benchmark.utils.text_file import open_regular

# The id of pixels that belong to no segment.
VOID = 0


class PanopticMap(PackedMap):
    """The segment of every pixel.

    Args:
        ids: (H, W) integers, VOID or 1..S.
        segments: S dicts; the k-th describes the pixels with id k: "label" (of a thing 1..K, of stuff its semantic
            class), "is_thing", and if known "score" and "crowd".

    Raises:
        ValueError: an id has no segment.
    """

    def __init__(self, ids: torch.Tensor | np.ndarray, segments: list[dict]):
        super().__init__(ids)
        self.segments = segments
        highest = int(np.asarray(ids).max(initial=VOID))
        if highest > len(segments):
            raise ValueError(f"a pixel has segment id {highest}, but there are {len(segments)} segments")

    def classes(self, num_things: int) -> np.ndarray:
        """Return (S,) int64 classes of the segments: label - 1 for things, num_things + label - 1 for stuff."""
        labels = [each["label"] - 1 + (0 if each["is_thing"] else num_things) for each in self.segments]
        return np.array(labels, dtype=np.int64)

    def __repr__(self) -> str:
        return f"PanopticMap(num_segments={len(self.segments)}, image_width={self.width}, image_height={self.height})"


def read_ids(path: str | os.PathLike) -> np.ndarray:
    """Read the segment ids of an image file as (H, W) int32: R + 256 G + 65536 B, or the gray value.

    Raises:
        OSError: the file does not exist or is not a complete image.
    """
    with open_regular(path) as file, Image.open(file) as image:
        if image.mode in ("L", "I", "I;16"):
            return np.asarray(image).astype(np.int32)
        return ids_from_colors(np.asarray(image.convert("RGB")))


def ids_from_colors(pixels: np.ndarray) -> np.ndarray:
    """Convert COCO's (H, W, 3) uint8 panoptic images to (H, W) int32 segment ids, R + 256 G + 65536 B."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), 2, 0)
    return red + 256 * green + 65536 * blue


def colors_from_ids(ids: np.ndarray) -> np.ndarray:
    """Invert `ids_from_colors`; ids are 0..2^24 - 1."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=2).astype(np.uint8)


def renumber(ids: np.ndarray, segment_ids: np.ndarray) -> np.ndarray:
    """Renumber a map (H, W) int32: pixels of segment_ids[k] become k + 1, VOID stays VOID, all others become S + 1.

    Args:
        ids: (H, W) int32.
        segment_ids: (S,) distinct numbers, none of them VOID.
    """
    order = np.argsort(segment_ids)
    ranked = np.concatenate((np.asarray(segment_ids)[order], [2**31 - 1]))  # the last one matches no pixel
    numbers = np.concatenate((order + 1, [len(order) + 1])).astype(np.int32)
    place = np.searchsorted(ranked, ids)
    result = np.where(ranked[place] == ids, numbers[place], np.int32(len(order) + 1))
    result[ids == VOID] = VOID
    return result


def extents(ids: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return areas (S,) int64 and boxes (S, 4) int64 x, y, width, height of the ids 1..count; 0 for missing ids."""
    areas = np.bincount(ids.ravel(), minlength=count + 1)[1 : count + 1]
    height, width = ids.shape
    on_column, on_row = np.zeros((count + 1, width), dtype=bool), np.zeros((count + 1, height), dtype=bool)
    on_column[ids, np.arange(width)] = True
    on_row[ids, np.arange(height)[:, None]] = True
    boxes = np.zeros((count, 4), dtype=np.int64)
    for axis, present in ((0, on_column[1:]), (1, on_row[1:])):
        first = present.argmax(axis=1)
        last = present.shape[1] - present[:, ::-1].argmax(axis=1)
        boxes[:, axis], boxes[:, 2 + axis] = first, np.where(areas > 0, last - first, 0)
    return areas, boxes
