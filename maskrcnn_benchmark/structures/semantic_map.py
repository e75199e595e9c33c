"""Class labels of every pixel of one image.

Shapes: N images, H x W pixels of an image, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, TO_REMOVE, check_flip

# The label of pixels without a class, and of padding. They are ignored in training and evaluation.
IGNORE_LABEL = 255


class SemanticMap:
    """A label for every pixel.

    Args:
        labels: (H, W) uint8, 0..C-1, or IGNORE_LABEL.

    It has the transforms of BoxList, and is the target of models without boxes. As the field "semantic" of a BoxList it
    is transformed with the boxes; indexing boxes does not change it.

    Raises:
        ValueError: labels has another shape or dtype.
    """

    def __init__(self, labels: torch.Tensor):
        if labels.dim() != 2 or labels.dtype != torch.uint8:
            raise ValueError(f"SemanticMap requires (H, W) uint8, got {tuple(labels.shape)} {labels.dtype}")
        self.labels = labels

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height)."""
        return self.labels.shape[1], self.labels.shape[0]

    def resize(self, size, *args, **kwargs) -> SemanticMap:
        """Resize to (width, height): every new pixel has the label of the old pixel under its center, as in PIL."""
        width, height = (int(side) for side in size)
        if min(width, height) <= 0:
            raise ValueError(f"a map can only be resized to at least one pixel, got size {size}")
        resized = Image.fromarray(self.labels.cpu().numpy()).resize((width, height), Image.Resampling.NEAREST)
        return SemanticMap(torch.from_numpy(np.array(resized)).to(self.labels.device))

    def transpose(self, method: int, box_offset: float = TO_REMOVE) -> SemanticMap:
        """Flip the map; method is FLIP_LEFT_RIGHT or FLIP_TOP_BOTTOM. box_offset has no effect on pixels."""
        check_flip(method, "SemanticMap")
        return SemanticMap(self.labels.flip(1 if method == FLIP_LEFT_RIGHT else 0))

    def crop(self, box) -> SemanticMap:
        """Crop to the window box = (x1, y1, x2, y2) with rounded corners; outside the image it is IGNORE_LABEL."""
        x1, y1, x2, y2 = (round(float(side)) for side in box)
        if x2 <= x1 or y2 <= y1:
            raise ValueError(f"a map can only be cropped to at least one pixel, got the window {box}")
        width, height = self.size
        window = self.labels.new_full((y2 - y1, x2 - x1), IGNORE_LABEL)
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if left < right and top < bottom:
            window[top - y1 : bottom - y1, left - x1 : right - x1] = self.labels[top:bottom, left:right]
        return SemanticMap(window)

    def to(self, *args, **kwargs) -> SemanticMap:
        return SemanticMap(self.labels.to(*args, **kwargs))

    def pin_memory(self) -> SemanticMap:
        return SemanticMap(self.labels.pin_memory())

    def __getitem__(self, item) -> SemanticMap:
        """Return the map itself: a BoxList indexes its fields when boxes are selected."""
        return self

    def __repr__(self) -> str:
        width, height = self.size
        return f"SemanticMap(image_width={width}, image_height={height})"


def to_label_batch(maps: Sequence[SemanticMap], size: tuple[int, int]) -> torch.Tensor:
    """Batch maps as (N, H, W) int64, padded with IGNORE_LABEL at the right and bottom, as `to_image_list` pads images.

    Args:
        size: (height, width) of the padded images.

    Raises:
        ValueError: a map is larger than that.
    """
    height, width = size
    batch = maps[0].labels.new_full((len(maps), height, width), IGNORE_LABEL)
    for padded, semantic in zip(batch, maps, strict=True):
        rows, columns = semantic.labels.shape
        if rows > height or columns > width:
            raise ValueError(f"a map of {columns} x {rows} pixels does not fit a padded image of {width} x {height}")
        padded[:rows, :columns] = semantic.labels
    return batch.long()
