"""Picture files: what their header says, and their pixels as 8-bit RGB.

Decisions that hold for every data set:

- Pixels are used as stored, whatever an EXIF rotation says: annotations are in stored coordinates. Only where the
  annotation file gives the size of the turned picture is it turned (`upright=True`).
- A truncated picture is used; PIL leaves what is missing grey.
- 16-bit pictures keep their upper 8 bits, other kinds (grey, palette, RGBA, CMYK) become RGB as PIL converts them;
  transparency is left out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFile, ImageOps

EXIF_ORIENTATION = 0x0112
# EXIF orientations that swap width and height
QUARTER_TURNS = (5, 6, 7, 8)

READABLE_MODES = frozenset("1 L LA P PA RGB RGBA RGBa RGBX CMYK YCbCr HSV I F I;16 I;16L I;16B I;16N".split())

# Header reading waits for the disk, mostly; eight readers keep a network disk busy and cost a local one nothing.
READERS = 8

# How a complete file ends. Some cameras write more after it: then only decoding can tell (see `_is_truncated`).
_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


@dataclass(frozen=True)
class PictureHeader:
    """What is known of a picture without its pixels.

    width, height are those of the stored pixels; quarter_turn: EXIF asks for a turn by 90 or 270 degrees;
    mode is PIL's; rotated: EXIF asks for a turn or a mirroring; truncated: the file ends early.
    """

    width: int
    height: int
    mode: str
    rotated: bool
    quarter_turn: bool
    truncated: bool


def read_header(path: str) -> PictureHeader:
    """The header of a picture file; pixels are decoded only when the end of the file looks wrong.

    Raises:
        OSError: no such file, not a picture, of a kind that has no RGB form, or damaged beyond decoding.
    """
    header = _header(path)
    return replace(header, truncated=_is_truncated(path)) if header.truncated else header


def read_headers(paths: Iterable[str]) -> list[PictureHeader | OSError]:
    """`read_header` of many files, in order; the error where one cannot be read."""
    paths = list(paths)
    with ThreadPoolExecutor(READERS) as readers:
        headers = list(readers.map(_error_as_value(_header), paths))
    # PIL's tolerance for truncated files is a global switch, so suspects are decoded here and not by the readers
    for i, header in enumerate(headers):
        if isinstance(header, PictureHeader) and header.truncated:
            headers[i] = _error_as_value(read_header)(paths[i])
    return headers


def _header(path: str) -> PictureHeader:
    """The header, where `truncated` is a suspicion: the file does not end as its format does."""
    with _bad_content_is_oserror(), open(path, "rb") as file, Image.open(file) as image:
        if image.mode not in READABLE_MODES:
            raise OSError(f"a picture of mode {image.mode!r} cannot be turned into RGB")
        orientation = image.getexif().get(EXIF_ORIENTATION, 1) if "exif" in image.info else 1
        return PictureHeader(
            width=image.width,
            height=image.height,
            mode=image.mode,
            rotated=orientation in range(2, 9),
            quarter_turn=orientation in QUARTER_TURNS,
            truncated=_looks_cut(file, image.format),
        )


def _error_as_value(read):
    def read_or_error(path: str):
        try:
            return read(path)
        except OSError as error:
            return error

    return read_or_error


def read_picture(path: str, upright: bool = False) -> Image.Image:
    """The pixels of a picture as 8-bit RGB.

    Args:
        path: file of any kind that PIL reads; the first frame counts.
        upright: turn it as its EXIF orientation says.
    Raises:
        OSError: no such file, not a picture, or damaged beyond decoding.
    """
    with _bad_content_is_oserror(), _truncated_pictures_allowed(), Image.open(path) as image:
        image.load()
        if upright:
            image = ImageOps.exif_transpose(image)
        return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image.copy() if image.readonly else image
    if image.mode.startswith("I"):  # "I;16" and its byte orders; "I" is 16 bits in 32
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.mode == "F":
        image = image.convert("L")  # there is no direct way
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns about the direct way
    return image.convert("RGB")


def _looks_cut(file, picture_format: str) -> bool:
    """Whether the file seems to end early, judged by a few bytes; False for other formats than JPEG and PNG."""
    ending = _LAST_BYTES.get(picture_format, b"")
    file.seek(max(file.seek(0, os.SEEK_END) - len(ending), 0))
    return file.read(len(ending)) != ending


def _is_truncated(path: str) -> bool:
    try:
        with _bad_content_is_oserror(), Image.open(path) as image:
            image.load()
    except OSError:
        read_picture(path)  # raises where even the tolerant way fails
        return True
    return False


@contextmanager
def _bad_content_is_oserror():
    """PIL's plugins meet damaged files with several kinds of exception; callers want one."""
    try:
        yield
    except (SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


@contextmanager
def _truncated_pictures_allowed():
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
