"""Transforms of a picture and its boxes: (image, target) -> (image, target).

Each also takes an image alone and then returns an image alone. Randomness comes from Python's `random`, so that
seeding it decides everything.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image, ImageEnhance

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM


def _result(image, target):
    return image if target is None else (image, target)


class Compose:
    """Transforms one after the other."""

    def __init__(self, transforms: list):
        self.transforms = transforms

    def __call__(self, image, target=None):
        for transform in self.transforms:
            if target is None:
                image = transform(image)
            else:
                image, target = transform(image, target)
        return _result(image, target)

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


class BoxOffset:
    """Boxes under the box_offset that the model counts with, see BoxList."""

    def __init__(self, box_offset: float):
        self.box_offset = box_offset

    def __call__(self, image, target=None):
        return _result(image, target if target is None else target.with_offset(self.box_offset))

    def __repr__(self) -> str:
        return f"BoxOffset({self.box_offset})"


class Resize:
    """Brings the short side of a PIL picture to a size drawn from `min_size`, the long side to at most `max_size`.

    Args:
        min_size: pixels, or several to choose from.
        max_size: pixels; rounding can make the long side one pixel shorter. None sets no limit.
        to_nearest: see Convention.resize_to_nearest.
    """

    def __init__(self, min_size: int | list[int] | tuple[int, ...], max_size: int | None, to_nearest: bool = False):
        self.to_nearest = to_nearest
        self.min_size = tuple(min_size) if isinstance(min_size, (list, tuple, range)) else (min_size,)
        self.max_size = max_size

    def get_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that a picture of (width, height) is resized to."""
        width, height = image_size
        # one size needs no draw: a test in the middle of a training must not disturb its random numbers
        size = self.min_size[0] if len(self.min_size) == 1 else random.choice(self.min_size)
        if self.to_nearest:
            scale = size / min(image_size)
            if self.max_size is not None:
                scale = min(scale, self.max_size / max(image_size))
            return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)
        if self.max_size is not None:
            short, long = float(min(image_size)), float(max(image_size))
            if long / short * size > self.max_size:
                size = round(self.max_size * short / long)
        size = max(size, 1)  # a line of a picture keeps one pixel
        if min(width, height) == size:
            return height, width
        if width < height:
            return int(size * height / width), size
        return size, int(size * width / height)

    def __call__(self, image: Image.Image, target=None):
        height, width = self.get_size(image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        if target is None:
            return image
        return image, target.resize(image.size)

    def __repr__(self) -> str:
        return f"Resize(min_size={self.min_size}, max_size={self.max_size}, to_nearest={self.to_nearest})"


class _RandomFlip:
    """Mirrors a PIL picture and its boxes with probability `prob`."""

    pil_method: Image.Transpose
    boxes_method: int

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def __call__(self, image: Image.Image, target=None):
        if random.random() < self.prob:
            image = image.transpose(self.pil_method)
            if target is not None:
                target = target.transpose(self.boxes_method)
        return _result(image, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prob={self.prob})"


class RandomHorizontalFlip(_RandomFlip):
    """Left becomes right with probability `prob`."""

    pil_method = Image.Transpose.FLIP_LEFT_RIGHT
    boxes_method = FLIP_LEFT_RIGHT


class RandomVerticalFlip(_RandomFlip):
    """Top becomes bottom with probability `prob`."""

    pil_method = Image.Transpose.FLIP_TOP_BOTTOM
    boxes_method = FLIP_TOP_BOTTOM


class ColorJitter:
    """Changes brightness, contrast, saturation and hue of an RGB PIL picture, in random order.

    Args:
        brightness, contrast, saturation: a factor is drawn from [max(0, 1 - value), 1 + value]; 0 changes nothing.
        hue: a shift is drawn from [-hue, hue], in turns of the colour circle, at most 0.5.

    Raises:
        ValueError: a negative number, or hue over 0.5.
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0):
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if value < 0:
                raise ValueError(f"ColorJitter: {name} is {value}; wanted 0 or more")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"ColorJitter: hue is {hue}; wanted 0 to 0.5")
        self.factors = {
            ImageEnhance.Brightness: brightness,
            ImageEnhance.Contrast: contrast,
            ImageEnhance.Color: saturation,
        }
        self.hue = hue

    def __call__(self, image: Image.Image, target=None):
        steps = [(enhance, value) for enhance, value in self.factors.items() if value > 0]
        if self.hue > 0:
            steps.append((None, self.hue))
        random.shuffle(steps)
        for enhance, value in steps:
            if enhance is None:
                image = _shift_hue(image, random.uniform(-value, value))
            else:
                image = enhance(image).enhance(random.uniform(max(0.0, 1.0 - value), 1.0 + value))
        return _result(image, target)

    def __repr__(self) -> str:
        values = ", ".join(f"{enhance.__name__.lower()}={value}" for enhance, value in self.factors.items())
        return f"ColorJitter({values}, hue={self.hue})"


def _shift_hue(image: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    shifted = np.asarray(hue) + np.uint8(int(turns * 255) % 256)  # wraps, as a circle does
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")


class ToTensor:
    """RGB PIL picture -> float32 tensor (3, H, W) in 0..1."""

    def __call__(self, image: Image.Image, target=None):
        pixels = torch.from_numpy(np.array(image))  # (H, W, 3) uint8
        tensor = pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        return _result(tensor, target)

    def __repr__(self) -> str:
        return "ToTensor()"


class Normalize:
    """(3, H, W) RGB in 0..1 -> (values - mean) / std.

    Args:
        mean, std: 3 numbers each, in the order and range of the outcome.
        to_bgr255: first to BGR in 0..255, which caffe's backbones were trained on.
    """

    def __init__(self, mean: list[float], std: list[float], to_bgr255: bool = True):
        self.mean = mean
        self.std = std
        self.to_bgr255 = to_bgr255

    def __call__(self, image: torch.Tensor, target=None):
        image = image[[2, 1, 0]].mul_(255) if self.to_bgr255 else image.clone()
        mean = torch.tensor(self.mean, dtype=image.dtype).view(-1, 1, 1)
        std = torch.tensor(self.std, dtype=image.dtype).view(-1, 1, 1)
        return _result(image.sub_(mean).div_(std), target)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std}, to_bgr255={self.to_bgr255})"
