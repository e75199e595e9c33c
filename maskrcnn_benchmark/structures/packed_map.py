"""Maps of whole numbers in little memory, for predictions of whole data sets.

Shapes: H x W pixels of a picture.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


class PackedMap:
    """A map without loss in some percent of its size.

    Args:
        values: (H, W) of whole numbers, 0 or more and below 2**31.

    It stands in BoxLists as a field that has a size of its own: picking and resizing boxes leave it as it is. Files of
    torch.save hold its attributes, which are numbers and one tensor.

    Raises:
        ValueError: values has another shape, or numbers that are out of range.
    """

    def __init__(self, values: torch.Tensor | np.ndarray):
        values = np.asarray(values)
        if values.ndim != 2 or values.size and (values.min() < 0 or values.max() >= 2**31):
            raise ValueError(f"a PackedMap is (H, W) of numbers in 0..2^31 - 1, got {values.shape} {values.dtype}")
        small = not values.size or values.max() < 256
        self.height, self.width = map(int, values.shape)
        self.bytes_per_pixel = 1 if small else 4
        pixels = values.astype(np.uint8 if small else "<i4").tobytes()
        # level 1: a map of segments is long runs, more work makes it hardly smaller
        self.packed = torch.frombuffer(bytearray(zlib.compress(pixels, 1)), dtype=torch.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    def unpack(self) -> np.ndarray:
        """(H, W) uint8, or int32 where the values do not fit.

        Raises:
            ValueError: the content is damaged.
        """
        count = self.height * self.width * self.bytes_per_pixel
        try:
            pixels = zlib.decompressobj().decompress(self.packed.numpy().tobytes(), count + 1)
        except zlib.error as error:
            raise ValueError(f"a packed map of {self.width} x {self.height} pixels is damaged: {error}") from error
        if len(pixels) != count:
            raise ValueError(f"a packed map of {self.width} x {self.height} pixels is damaged: it has another size")
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
