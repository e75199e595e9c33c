"""Compressed integer maps, for predictions of whole datasets.

Shapes: H x W pixels of an image.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


class PackedMap:
    """A losslessly compressed map, a few percent of its original size.

    Args:
        values: (H, W) integers from 0 to 2**31 - 1.

    As a field of a BoxList it keeps its size: indexing and resizing boxes do not change it. With torch.save it is
    stored as its attributes, numbers and one tensor.

    Raises:
        ValueError: values has another shape, or numbers out of range.
    """

    def __init__(self, values: torch.Tensor | np.ndarray):
        values = np.asarray(values)
        if values.ndim != 2 or values.size and (values.min() < 0 or values.max() >= 2**31):
            raise ValueError(f"PackedMap requires (H, W) of 0..2^31 - 1, got {values.shape} {values.dtype}")
        small = not values.size or values.max() < 256
        self.height, self.width = map(int, values.shape)
        self.bytes_per_pixel = 1 if small else 4
        pixels = values.astype(np.uint8 if small else "<i4").tobytes()
        # Level 1: segment maps have long runs, and higher levels hardly reduce their size.
        self.packed = torch.frombuffer(bytearray(zlib.compress(pixels, 1)), dtype=torch.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height)."""
        return self.width, self.height

    def unpack(self) -> np.ndarray:
        """Return the map (H, W), uint8 if the values fit, otherwise int32.

        Raises:
            ValueError: the data is damaged.
        """
        count = self.height * self.width * self.bytes_per_pixel
        try:
            pixels = zlib.decompressobj().decompress(self.packed.numpy().tobytes(), count + 1)
        except zlib.error as error:
            raise ValueError(f"a packed map of {self.width} x {self.height} pixels is damaged: {error}") from error
        if len(pixels) != count:
            raise ValueError(f"a packed map of {self.width} x {self.height} pixels is damaged: its size is wrong")
        dtype = np.uint8 if self.bytes_per_pixel == 1 else np.dtype("<i4")
        return np.frombuffer(pixels, dtype=dtype).reshape(self.height, self.width).copy()

    def to(self, *args, **kwargs) -> PackedMap:
        return self

    def resize(self, size, *args, **kwargs) -> PackedMap:
        return self

    def __getitem__(self, item) -> PackedMap:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}(image_width={self.width}, image_height={self.height})"
