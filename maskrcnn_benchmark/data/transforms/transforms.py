"""Transforms of an image and its target: (image, target) -> (image, target).

Called with an image alone, a transform returns the image alone. All random numbers come from Python's `random`.

An image is an RGB PIL image or a uint8 tensor (3, H, W). Resize and the flips return such tensors: one byte per value
in contiguous channels is the cheapest form until Normalize.
"""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM


def _result(image, target):
    return image if target is None else (image, target)


def to_pixels(image: Image.Image | Tensor) -> Tensor:
    """Convert an RGB PIL image to (3, H, W) uint8; a tensor is returned unchanged."""
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class Compose:
    """Apply transforms in sequence."""

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
    """Convert boxes to the model's box_offset, see BoxList."""

    def __init__(self, box_offset: float):
        self.box_offset = box_offset

    def __call__(self, image, target=None):
        return _result(image, target if target is None else target.with_offset(self.box_offset))

    def __repr__(self) -> str:
        return f"BoxOffset({self.box_offset})"


class LeaveOut:
    """Drop a field of the target."""

    def __init__(self, field: str):
        self.field = field

    def __call__(self, image, target=None):
        if target is None:
            return image
        return image, target.copy_with_fields([field for field in target.fields() if field != self.field])

    def __repr__(self) -> str:
        return f"LeaveOut({self.field!r})"


class Resize:
    """Resize the short side to a size drawn from `min_size`, limiting the long side to `max_size`.

    Bilinear with antialiasing, like PIL. About one value in two thousand differs from PIL's by 1, very rarely by 2.

    Args:
        min_size: pixels, or a list to draw from.
        max_size: pixels; rounding can make the long side one pixel shorter. None sets no limit.
        to_nearest: see Convention.resize_to_nearest.
    """

    def __init__(self, min_size: int | list[int] | tuple[int, ...], max_size: int | None, to_nearest: bool = False):
        self.to_nearest = to_nearest
        self.min_size = tuple(min_size) if isinstance(min_size, (list, tuple, range)) else (min_size,)
        self.max_size = max_size

    def get_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) to resize an image of (width, height) to."""
        width, height = image_size
        # do not draw from a single size: a test during training must not change the training's random numbers
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
        size = max(size, 1)  # very long images keep one pixel
        if min(width, height) == size:
            return height, width
        if width < height:
            return int(size * height / width), size
        return size, int(size * width / height)

    def __call__(self, image: Image.Image | Tensor, target=None):
        # present the pixels as channels-last, as they are in memory: torch's fastest path
        pixels = to_pixels(image).permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        size = self.get_size((pixels.shape[3], pixels.shape[2]))
        if size != tuple(pixels.shape[2:]):
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        pixels = pixels[0].contiguous()
        return _result(pixels, target if target is None else target.resize(size[::-1]))

    def __repr__(self) -> str:
        return f"Resize(min_size={self.min_size}, max_size={self.max_size}, to_nearest={self.to_nearest})"


class _RandomFlip:
    """Flip an image and its target with probability `prob`."""

    dim: int
    boxes_method: int

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def __call__(self, image: Image.Image | Tensor, target=None):
        pixels = to_pixels(image)
        if random.random() < self.prob:
            pixels = pixels.flip(self.dim)
            if target is not None:
                target = target.transpose(self.boxes_method)
        return _result(pixels, target)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prob={self.prob})"


class RandomHorizontalFlip(_RandomFlip):
    """Flip left and right with probability `prob`."""

    dim = 2
    boxes_method = FLIP_LEFT_RIGHT


class RandomVerticalFlip(_RandomFlip):
    """Flip top and bottom with probability `prob`."""

    dim = 1
    boxes_method = FLIP_TOP_BOTTOM


class ColorJitter:
    """Change brightness, contrast, saturation and hue of an RGB PIL image, in random order.

    Args:
        brightness, contrast, saturation: the factor is drawn from [max(0, 1 - value), 1 + value]; 0 disables it.
        hue: the shift is drawn from [-hue, hue], in turns of the colour wheel, at most 0.5.

    Raises:
        ValueError: a number is negative, or hue exceeds 0.5.
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0):
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if value < 0:
                raise ValueError(f"ColorJitter: {name} must be 0 or more, got {value}")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"ColorJitter: hue must be 0 to 0.5, got {hue}")
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
    shifted = np.asarray(hue) + np.uint8(int(turns * 255) % 256)  # wraps around the colour wheel
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")


class ToTensor:
    """Convert an image to a float32 tensor (3, H, W) in 0..1."""

    def __call__(self, image: Image.Image | Tensor, target=None):
        tensor = to_pixels(image).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        return _result(tensor, target)

    def __repr__(self) -> str:
        return "ToTensor()"


class Normalize:
    """Convert an image, or the result of ToTensor, to (values - mean) / std, a float32 tensor (3, H, W).

    Args:
        mean, std: 3 numbers each, in the channel order and range of the output.
        to_bgr255: the output is BGR in 0..255, as for Caffe's backbones, instead of RGB in 0..1.
    """

    def __init__(self, mean: list[float], std: list[float], to_bgr255: bool = True):
        self.mean = mean
        self.std = std
        self.to_bgr255 = to_bgr255

    def __call__(self, image: Image.Image | Tensor, target=None):
        image = to_pixels(image)
        whole_numbers = image.dtype == torch.uint8
        result = torch.empty(image.shape, dtype=torch.float32)
        # one channel at a time, in place: it fits into the cache and is written to memory once
        colors = image.unbind()[::-1] if self.to_bgr255 else image.unbind()
        for plane, color, mean, std in zip(result, colors, self.mean, self.std, strict=True):
            plane.copy_(color)
            if whole_numbers and not self.to_bgr255:
                plane.div_(255)
            elif not whole_numbers and self.to_bgr255:
                plane.mul_(255)
            plane.sub_(mean)
            if std != 1:
                plane.div_(std)
        return _result(result, target)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std}, to_bgr255={self.to_bgr255})"
