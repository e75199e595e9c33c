"""Images as users have them, turned into 8-bit RGB."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from maskrcnn_benchmark.data.datasets.images import array_to_rgb, read_image, to_rgb

CHANNEL_ORDERS = ("rgb", "bgr")
SINGLE = (str, os.PathLike, Image.Image)


@dataclass(frozen=True)
class ImageReader:
    """Read an image from a path, a PIL image, an array or a tensor.

    Args:
        upright: rotate and mirror files and PIL images as EXIF says.
        value_range: see `datasets.images`.
        channel_order: "rgb" or "bgr", of arrays and tensors with colours.

    Raises:
        ValueError: channel_order is something else.
    """

    upright: bool = True
    value_range: tuple[float, float] | None = None
    channel_order: str | None = None

    def __post_init__(self):
        if self.channel_order is not None and self.channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order is 'rgb' or 'bgr', got {self.channel_order!r}")

    def __call__(self, given) -> Image.Image | torch.Tensor:
        """Return an RGB PIL image, or (3, H, W) uint8 of an array or tensor.

        Args:
            given: path, PIL image, array (H, W), (H, W, 1 or 3 or 4), or tensor (1 or 3 or 4, H, W).

        Raises:
            OSError: the file is missing, no image, or damaged beyond decoding.
            ValueError: an array or tensor has another shape or dtype, or colours of unknown order.
            TypeError: given is something else.
        """
        if isinstance(given, (str, os.PathLike)):
            return read_image(os.path.expanduser(given), self.upright, self.value_range)
        if isinstance(given, Image.Image):
            return to_rgb(given, self.upright, self.value_range)
        if isinstance(given, torch.Tensor):
            if given.dim() != 3:
                raise ValueError(f"a tensor is one image (3, H, W), got {tuple(given.shape)}")
            given = given.detach().to("cpu")
            given = given.float() if given.dtype in (torch.bfloat16, torch.float16) else given
            return self._from_array(given.permute(1, 2, 0).numpy(), "a tensor")
        if isinstance(given, np.ndarray):
            return self._from_array(given, "an array")
        raise TypeError(
            f"an image is a path, a PIL image, a numpy array or a tensor, got {type(given).__module__}."
            f"{type(given).__name__}"
        )

    def _from_array(self, values: np.ndarray, kind: str) -> torch.Tensor:
        colors = values.ndim == 3 and values.shape[2] > 1
        if colors and self.channel_order is None:
            raise ValueError(
                f"the order of the colours of {kind} is not known: give channel_order='rgb' (PIL, torchvision, "
                "imageio) or channel_order='bgr' (OpenCV)"
            )
        pixels = array_to_rgb(values, self.channel_order == "bgr", self.value_range)
        if not pixels.flags.writeable:
            pixels = pixels.copy()
        return torch.from_numpy(pixels).permute(2, 0, 1)


def is_single(given) -> bool:
    """Return whether `given` is one image, not an iterable of images."""
    if isinstance(given, np.ndarray):
        # of object: what Ray makes of images of different sizes
        return given.ndim in (2, 3) and given.dtype != object
    if isinstance(given, torch.Tensor):
        return given.dim() == 3
    return isinstance(given, SINGLE) or not hasattr(given, "__iter__")


def size_of(image: Image.Image | torch.Tensor) -> tuple[int, int]:
    """Return (width, height)."""
    return image.size if isinstance(image, Image.Image) else (image.shape[2], image.shape[1])
