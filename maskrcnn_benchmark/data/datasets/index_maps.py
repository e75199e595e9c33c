"""Read index maps: one-channel image files whose pixel values are class numbers.

Shapes: H x W pixels of a map.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from maskrcnn_benchmark.utils.text_file import open_regular

READERS = 8
MAX_VALUE = 65535
# Lossless formats. JPEG blends the values of neighbouring classes.
MAP_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif")
LOSSY_FORMATS = ("JPEG", "JPEG2000", "WEBP")


@dataclass(frozen=True)
class MapSummary:
    """Size and histogram of a map.

    Attributes:
        width, height: in pixels.
        values: the pixel values that occur, ascending.
        counts: number of pixels of each value.
        grey_in_rgb: true if the map is stored as RGB with three equal channels.
    """

    width: int
    height: int
    values: np.ndarray
    counts: np.ndarray
    grey_in_rgb: bool


def read_index_map(path: str) -> np.ndarray:
    """Read the pixel values of a palette or grey image of 1, 8 or 16 bits, as (H, W) uint8, uint16 or int32.

    An RGB image with three equal channels is read as grey.

    Raises:
        OSError: the file does not exist or cannot be decoded completely.
        ValueError: the image has a lossy format, colours, an alpha channel or floating-point values.
    """
    return _read(path)[0]


def _read(path: str) -> tuple[np.ndarray, bool]:
    """Return the pixel values, and whether they are stored as RGB."""
    with _one_kind_of_error(path), open_regular(path) as file, Image.open(file) as image:
        image.load()
        file_format, mode, values = image.format, image.mode, np.asarray(image)
    if file_format in LOSSY_FORMATS:
        raise ValueError(f"{path} is a {file_format}, a lossy format, which changes class numbers; expected a PNG")
    if mode == "1":
        return values.astype(np.uint8), False
    if mode in ("L", "P") or mode.startswith("I"):
        return values, False
    if mode == "RGB":
        if (values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all():
            return values[..., 0], True
        raise ValueError(
            f"{path} is an RGB image in colour; expected an index map, one class number per pixel, as a palette or "
            "grey PNG. Convert the colours to class numbers first"
        )
    raise ValueError(f"{path} is an image of mode {mode}; expected an index map: a palette or grey PNG of 8 or 16 bits")


def summarize_map(path: str) -> MapSummary:
    """Decode a map and count its pixel values.

    Raises:
        OSError: see `read_index_map`.
        ValueError: see `read_index_map`; or a value is outside 0..65535.
    """
    pixels, rgb = _read(path)
    if pixels.dtype == np.uint8:
        counts = np.array(Image.fromarray(pixels).histogram())  # ten times as fast as bincount, which converts to int64
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(pixels, return_counts=True)
    if values.size and not 0 <= values[0] <= values[-1] <= MAX_VALUE:
        raise ValueError(
            f"{path} has the value {values[0] if values[0] < 0 else values[-1]}; expected 0 to {MAX_VALUE}"
        )
    return MapSummary(pixels.shape[1], pixels.shape[0], values.astype(np.int64), counts.astype(np.int64), rgb)


def summarize_maps(paths: Iterable[str]) -> list[MapSummary | OSError | ValueError]:
    """Call `summarize_map` for many files, in order. For a file that fails the element is the error."""

    def summary_or_error(path):
        try:
            return summarize_map(path)
        except (OSError, ValueError) as error:
            return error

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(summary_or_error, paths))


@contextmanager
def _one_kind_of_error(path: str):
    """Convert the exceptions that PIL's decoders raise on damaged files to OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{os.path.basename(path)}: {type(error).__name__}: {error}") from error
