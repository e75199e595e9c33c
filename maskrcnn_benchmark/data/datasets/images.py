"""Read image headers, and pixels as 8-bit RGB.

Training, testing and prediction all read images here, by the same rules:

- Truncated images are used; PIL fills the missing part with grey.
- Only the first frame of an animation or multi-image file is used.
- Grey, palette, 1-bit, CMYK and other 8-bit images are converted to RGB by PIL; transparency is dropped.
- Images of more than 8 bits are mapped linearly to 0..255. The source range is `value_range` (INPUT.VALUE_RANGE) if
  given. Otherwise it is 0..65535 for integers (the upper 8 of 16 bits), 0..1 for floats if the image's maximum is at
  most 1, and 0..255 for other floats. Values outside the range are clipped; NaN becomes 0.
- Pixels are used as stored unless the caller requests the EXIF rotation (`upright`).

Images in memory follow the same rules: `to_rgb` for PIL images, `array_to_rgb` for arrays.
"""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from maskrcnn_benchmark.data.datasets.jpeg_header import plain_jpeg_size
from maskrcnn_benchmark.data.datasets.shards import ShardMember
from maskrcnn_benchmark.utils.text_file import open_regular

EXIF_ORIENTATION = 0x0112
# EXIF orientations that swap width and height
QUARTER_TURNS = (5, 6, 7, 8)

READABLE_MODES = frozenset("1 L LA P PA RGB RGBA RGBa RGBX CMYK YCbCr HSV I F I;16 I;16L I;16B I;16N".split())

# Ranges mapped to 0..255 if no range is given.
SIXTEEN_BITS = (0, 65535)
UNIT = (0, 1)
EIGHT_BITS = (0, 255)

# Reading headers mostly waits for the disk. Eight threads keep a network disk busy and do not slow a local one.
READERS = 8
# Headers per task of a reader thread.
TURN = 256

# Exceptions that PIL's plugins raise on damaged files.
_BAD_CONTENT = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError)

NOT_AN_IMAGE = "not an image in a format that PIL reads"

_TOLERANCE = threading.RLock()

# Last bytes of a complete file. Some cameras append more data; then only decoding decides (see `_is_truncated`).
_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Header of an image file.

    Attributes:
        width, height: of the stored pixels.
        mode: PIL's mode.
        rotated: true if EXIF asks for a rotation or mirroring.
        quarter_turn: true if EXIF asks for a rotation by 90 or 270 degrees.
        truncated: true if the file ends early.
        deep: true if the file has more than 8 bits per channel. PIL reads 16-bit colours as mode RGB.
        animated: true if the file has several frames.
    """

    width: int
    height: int
    mode: str
    rotated: bool
    quarter_turn: bool
    truncated: bool
    deep: bool = False
    animated: bool = False


def read_header(path: str | ShardMember) -> ImageHeader:
    """Read the header of an image file. Pixels are decoded only if the file seems to end early.

    Raises:
        OSError: the file does not exist, is not a regular file or not an image, has a mode that cannot be converted to
            RGB, or is too damaged to decode.
    """
    header = _header(path)
    return replace(header, truncated=_is_truncated(path)) if header.truncated else header


def read_headers(paths: Iterable[str | ShardMember]) -> list[ImageHeader | OSError]:
    """Read many headers, in order. For a file that cannot be read the element is the error."""
    paths = list(paths)
    parts = [paths[first : first + TURN] for first in range(0, len(paths), TURN)]
    with ThreadPoolExecutor(READERS) as readers:
        headers = [header for part in readers.map(_headers, parts) for header in part]
    # PIL's tolerance for truncated files is a global switch, so possibly truncated files are decoded in this thread
    for i, header in enumerate(headers):
        if isinstance(header, ImageHeader) and header.truncated:
            headers[i] = _error_as_value(read_header)(paths[i])
    return headers


def _headers(paths: list[str | ShardMember]) -> list[ImageHeader | OSError]:
    read = _error_as_value(_header)
    headers = []
    for path in paths:
        size = plain_jpeg_size(path)
        headers.append(read(path) if size is None else ImageHeader(*size, "RGB", False, False, False))
    return headers


def _header(path: str | ShardMember) -> ImageHeader:
    """Read the header; `truncated` is only a guess, from the last bytes of the file."""
    with _bad_content_is_oserror(), _open(path) as file, Image.open(file) as image:
        if image.mode not in READABLE_MODES:
            raise OSError(f"an image of mode {image.mode!r} cannot be converted to RGB")
        orientation = image.getexif().get(EXIF_ORIENTATION, 1) if "exif" in image.info else 1
        return ImageHeader(
            width=image.width,
            height=image.height,
            mode=image.mode,
            rotated=orientation in range(2, 9),
            quarter_turn=orientation in QUARTER_TURNS,
            truncated=_looks_cut(file, image.format),
            deep=_is_deep(image),
            # a phone's JPEG (MPO) carries a preview or a depth map as its second image
            animated=image.format != "MPO" and getattr(image, "is_animated", False),
        )


def _open(path: str | ShardMember):
    """Open a file, or a file in a tar file, for reading bytes."""
    return io.BytesIO(path.read()) if isinstance(path, ShardMember) else open_regular(path)


def _error_as_value(read):
    def read_or_error(path: str):
        try:
            return read(path)
        except OSError as error:
            return error

    return read_or_error


def read_image(
    path: str | ShardMember,
    upright: bool = False,
    value_range: tuple[float, float] | None = None,
    on_truncated: Callable[[], None] | None = None,
) -> Image.Image:
    """Read an image file as 8-bit RGB, by the rules of this module.

    Args:
        path: file in any format that PIL reads.
        upright: rotate and mirror it by its EXIF orientation.
        value_range: (lowest, highest) values mapped to 0 and 255 in images of more than 8 bits.
        on_truncated: called if the file ends early.

    Raises:
        OSError: the file does not exist, is not a regular file or not an image, or is too damaged to decode.
    """
    with _bad_content_is_oserror(), _open(path) as file:
        try:
            return _decode(file, upright, value_range)
        except _BAD_CONTENT:  # usually a truncated file; for other damage the second attempt raises again
            file.seek(0)
            try:
                with _truncated_images_allowed():
                    image = _decode(file, upright, value_range)
            except UnidentifiedImageError:
                raise OSError(f"{path} is {NOT_AN_IMAGE}") from None
            if on_truncated is not None:
                on_truncated()
            return image


def value_extremes(path: str | ShardMember) -> tuple[float, float]:
    """Return the lowest and highest finite value of an image of more than 8 bits.

    Raises:
        OSError: see `read_image`.
    """
    with _bad_content_is_oserror(), _open(path) as file, Image.open(file) as image:
        values = _deep_values(image, file)
    values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def default_range(mode: str, highest: float) -> tuple[float, float]:
    """Return the range mapped to 0..255 for an image of more than 8 bits with PIL mode `mode` and maximum `highest`."""
    if mode != "F":
        return SIXTEEN_BITS
    return UNIT if highest <= 1 else EIGHT_BITS


def _decode(file, upright: bool, value_range) -> Image.Image:
    with Image.open(file) as image:
        return _to_rgb8(image, file, upright, value_range)


def to_rgb(image: Image.Image, upright: bool = False, value_range: tuple[float, float] | None = None) -> Image.Image:
    """Convert a PIL image to 8-bit RGB, by the rules of this module. The input is not modified.

    Args:
        image: in any mode, opened from a file or created in memory.
        upright, value_range: see `read_image`.

    Raises:
        OSError: the file behind the image is damaged, or its mode cannot be converted to RGB.
    """
    with _bad_content_is_oserror():
        if image.mode not in READABLE_MODES:
            raise OSError(f"an image of mode {image.mode!r} cannot be converted to RGB")
        return _to_rgb8(image, getattr(image, "fp", None), upright, value_range)


def array_to_rgb(
    values: np.ndarray, reversed_colors: bool = False, value_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Convert an array to (H, W, 3) uint8 RGB, by the rules of this module.

    Args:
        values: (H, W) or (H, W, 1) grey, (H, W, 3) colour, or (H, W, 4) colour and alpha, which is dropped; uint8,
            uint16, int32 or floating.
        reversed_colors: channels are in BGR order.
        value_range: see `read_image`; ignored for uint8.

    Raises:
        ValueError: the shape or dtype is none of these.
    """
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or 0 in values.shape:
        raise ValueError(
            f"an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with at least one pixel, got "
            f"{tuple(values.shape)}"
        )
    if values.dtype.kind != "f" and values.dtype not in (np.uint8, np.uint16, np.int32):
        raise ValueError(f"an image array must be uint8, uint16, int32 or floating, got {values.dtype}")
    if values.shape[2] == 1:
        values = np.broadcast_to(values, (*values.shape[:2], 3))
    elif reversed_colors:
        values = values[:, :, 2::-1]
    else:
        values = values[:, :, :3]
    if values.dtype != np.uint8:
        mode = "F" if values.dtype.kind == "f" else "I"
        low, high = value_range or default_range(mode, float(np.nanmax(values, initial=0)))
        values = _to_8_bits(values, low, high)
    return np.ascontiguousarray(values)


def _to_rgb8(image: Image.Image, file, upright: bool, value_range) -> Image.Image:
    """Convert an image. `file` is read again for 16-bit colours; None uses PIL's 8 bits of them."""
    exif = image.getexif() if upright else None
    if image.mode in ("I", "F") or _is_deep(image) and (value_range or image.mode.startswith("I")):
        decoded = _from_deep(image, file, value_range)
        if upright:
            decoded.getexif()[EXIF_ORIENTATION] = exif.get(EXIF_ORIENTATION, 1)
    else:
        image.load()
        decoded = image
    if upright:
        decoded = ImageOps.exif_transpose(decoded)
    return _to_rgb_mode(decoded)


def _is_deep(image: Image.Image) -> bool:
    """Return whether an image, opened but not loaded, has more than 8 bits per channel."""
    return image.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _deep_values(image: Image.Image, file) -> np.ndarray:
    """Decode an image of more than 8 bits to (H, W) or (H, W, 3) RGB values."""
    if image.mode[0] in "IF":
        image.load()
        return np.asarray(image)
    import cv2  # PIL drops the lower bits of 16-bit colours

    file.seek(0)
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    values = cv2.imdecode(np.frombuffer(file.read(), dtype=np.uint8), flags)
    if values is None:
        raise OSError("the 16-bit colours of the image cannot be decoded")
    return values[:, :, ::-1]


def _from_deep(image: Image.Image, file, value_range) -> Image.Image:
    values = _deep_values(image, file)
    low, high = value_range or default_range(image.mode, float(np.nanmax(values, initial=0)))
    return Image.fromarray(_to_8_bits(values, low, high))


def _to_8_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high linearly to 0..255 uint8."""
    if (low, high) == SIXTEEN_BITS:
        return (values.astype(np.int64).clip(low, high) >> 8).astype(np.uint8)
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(scaled, posinf=255, neginf=0).clip(0, 255).round().astype(np.uint8)


def _to_rgb_mode(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image.copy() if image.readonly else image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns about a direct conversion to RGB
    return image.convert("RGB")


def _looks_cut(file, image_format: str) -> bool:
    """Return whether a JPEG or PNG file seems to end early, judged by its last bytes; False for other formats."""
    ending = _LAST_BYTES.get(image_format, b"")
    file.seek(max(file.seek(0, os.SEEK_END) - len(ending), 0))
    return file.read(len(ending)) != ending


def _is_truncated(path: str | ShardMember) -> bool:
    found: list[bool] = []
    read_image(path, on_truncated=lambda: found.append(True))  # raises if tolerant decoding fails too
    return bool(found)


@contextmanager
def _bad_content_is_oserror():
    """Convert the exceptions that PIL's plugins raise on damaged files to OSError."""
    try:
        yield
    except UnidentifiedImageError:  # its text names the open file, not the path
        raise OSError(NOT_AN_IMAGE) from None
    except _BAD_CONTENT as error:
        if isinstance(error, OSError):
            raise
        raise OSError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _truncated_images_allowed():
    """Enable PIL's tolerance for truncated files, in one thread at a time: the switch is global to the process."""
    with _TOLERANCE:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
