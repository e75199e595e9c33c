"""Augmentation for semantic segmentation: random scale, random crop, padding (Chen et al., DeepLab, 2017).

Transforms map (image, target) to (image, target) and draw from Python's `random`. A target is a BoxList with the field
"semantic" (SemanticMap); its other fields are transformed too.
"""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from maskrcnn_benchmark.data.transforms.transforms import to_pixels
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL

# Maximum number of crops drawn; the last one is accepted whatever its content.
CROP_TRIES = 10


class RandomScale:
    """Resize by a factor between `smallest` and `largest`, drawn log-uniformly: half and double are equally likely.

    The image is resized with PIL's Lanczos filter, the map by nearest neighbour. Sides are at least one pixel.
    """

    def __init__(self, smallest: float, largest: float):
        self.smallest, self.largest = smallest, largest

    def __call__(self, image: Image.Image | Tensor, target=None):
        factor = math.exp(random.uniform(math.log(self.smallest), math.log(self.largest)))
        pixels = to_pixels(image)
        height, width = pixels.shape[1:]
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        if size != (width, height):
            if isinstance(image, Tensor):
                image = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
            pixels = to_pixels(image.resize(size, Image.Resampling.LANCZOS))
        return pixels if target is None else (pixels, target.resize(size))

    def __repr__(self) -> str:
        return f"RandomScale(smallest={self.smallest}, largest={self.largest})"


class RandomCrop:
    """Crop a window of at most (height, width) at a random position.

    Args:
        size: (height, width). Shorter image sides are kept; PadTo pads them afterwards.
        max_class_share: a window is rejected if one class has more than this share of its labelled pixels. At most
            CROP_TRIES windows are drawn, and the last is accepted; a share of 1 accepts the first.
    """

    def __init__(self, size: tuple[int, int], max_class_share: float = 1.0):
        self.size = tuple(size)
        self.max_class_share = max_class_share

    def __call__(self, image: Image.Image | Tensor, target=None):
        pixels = to_pixels(image)
        height, width = pixels.shape[1:]
        crop_height, crop_width = min(self.size[0], height), min(self.size[1], width)
        for _ in range(CROP_TRIES):
            top, left = random.randint(0, height - crop_height), random.randint(0, width - crop_width)
            cut = None if target is None else target.crop((left, top, left + crop_width, top + crop_height))
            if cut is None or self.max_class_share >= 1 or self._is_mixed(cut):
                break
        pixels = pixels[:, top : top + crop_height, left : left + crop_width]
        return pixels if target is None else (pixels, cut)

    def _is_mixed(self, target) -> bool:
        labels = target.get_field("semantic").labels
        counts = torch.bincount(labels[labels != IGNORE_LABEL].flatten().long())
        return bool(counts.sum() > 0 and counts.max() <= self.max_class_share * counts.sum())

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, max_class_share={self.max_class_share})"


class PadTo:
    """Pad a normalised image (3, H, W) at the right and bottom to at least (height, width).

    The image is padded with 0, its mean, and the map with IGNORE_LABEL.
    """

    def __init__(self, size: tuple[int, int]):
        self.size = tuple(size)

    def __call__(self, image: Tensor, target=None):
        height, width = max(image.shape[1], self.size[0]), max(image.shape[2], self.size[1])
        if (height, width) != tuple(image.shape[1:]):
            image = F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))
            target = None if target is None else target.crop((0, 0, width, height))
        return image if target is None else (image, target)

    def __repr__(self) -> str:
        return f"PadTo(size={self.size})"
