"""Convert paths, PIL images, arrays and tensors to 8-bit RGB."""

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
    """Reader of paths, PIL images, arrays and tensors as 8-bit RGB.

    Args:
        upright: apply the EXIF orientation of files and PIL images.
        value_range: see `datasets.images`.
        channel_order: "rgb" or "bgr": the order of colour arrays and tensors; None rejects these.

    Raises:
        ValueError: channel_order is neither.
    """

    upright: bool = True
    value_range: tuple[float, float] | None = None
    channel_order: str | None = None

    def __post_init__(self):
        if self.channel_order is not None and self.channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")

    def __call__(self, given) -> Image.Image | torch.Tensor:
        """Convert one image to RGB.

        Args:
            given: path, PIL image, array (H, W) or (H, W, 1 or 3 or 4), or tensor (1 or 3 or 4, H, W).

        Returns:
            RGB PIL image for a path or PIL image; (3, H, W) uint8 tensor for an array or tensor.

        Raises:
            OSError: the file is missing, is not an image, or cannot be decoded.
            ValueError: an array or tensor has an unsupported shape or dtype, or is in colour without channel_order.
            TypeError: given is something else.
        """
        if isinstance(given, (str, os.PathLike)):
            return read_image(os.path.expanduser(given), self.upright, self.value_range)
        if isinstance(given, Image.Image):
            return to_rgb(given, self.upright, self.value_range)
        if isinstance(given, torch.Tensor):
            if given.dim() != 3:
                raise ValueError(f"a tensor must be one image (3, H, W), got {tuple(given.shape)}")
            given = given.detach().to("cpu")
            given = given.float() if given.dtype in (torch.bfloat16, torch.float16) else given
            return self._from_array(given.permute(1, 2, 0).numpy(), "a tensor")
        if isinstance(given, np.ndarray):
            return self._from_array(given, "an array")
        raise TypeError(
            f"an image must be a path, a PIL image, a numpy array or a tensor, got {type(given).__module__}."
            f"{type(given).__name__}"
        )

    def _from_array(self, values: np.ndarray, kind: str) -> torch.Tensor:
        colors = values.ndim == 3 and values.shape[2] > 1
        if colors and self.channel_order is None:
            raise ValueError(
                f"the channel order of {kind} is unknown: pass channel_order='rgb' (PIL, torchvision, imageio) or "
                "channel_order='bgr' (OpenCV)"
            )
        pixels = array_to_rgb(values, self.channel_order == "bgr", self.value_range)
        if not pixels.flags.writeable:
            pixels = pixels.copy()
        return torch.from_numpy(pixels).permute(2, 0, 1)


def is_single(given) -> bool:
    """Return whether `given` is one image, not an iterable of images."""
    if isinstance(given, np.ndarray):
        # Ray puts images of different sizes into an array of dtype object.
        return given.ndim in (2, 3) and given.dtype != object
    if isinstance(given, torch.Tensor):
        return given.dim() == 3
    return isinstance(given, SINGLE) or not hasattr(given, "__iter__")


def size_of(image: Image.Image | torch.Tensor) -> tuple[int, int]:
    """Return (width, height) of a PIL image or a tensor (C, H, W)."""
    return image.size if isinstance(image, Image.Image) else (image.shape[2], image.shape[1])
