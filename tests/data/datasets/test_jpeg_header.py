"""The size that is read without PIL is PIL's, or left to PIL."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.data.datasets.images import ImageHeader, read_header, read_headers
from maskrcnn_benchmark.data.datasets.jpeg_header import plain_jpeg_size


def jpeg(mode="RGB", size=(37, 21), **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


PLAIN = {
    "baseline": jpeg(),
    "progressive": jpeg(progressive=True),
    "optimised": jpeg(optimize=True, quality=30),
    "no subsampling": jpeg(subsampling=0),
    "comment": jpeg(comment=b"taken at noon"),
    "restart markers": jpeg(restart_marker_blocks=2),
    "large": jpeg(size=(1000, 700)),
}
OTHERS = {
    "grey": jpeg("L"),
    "cmyk": jpeg("CMYK"),
    "exif": jpeg(exif=exif(6)),
    "colour profile": jpeg(icc_profile=b"profile" * 300),
    "bytes after the end": jpeg() + b"\0" * 7,
    "cut": jpeg()[:-200],
    "cut in the header": jpeg()[:100] + b"\xff\xd9",
    "cut in the frame": jpeg()[: jpeg().index(b"\xff\xc0") + 7] + b"\xff\xd9",
    "comment longer than the file": b"\xff\xd8\xff\xfe\xff\xff" + b"a" * 50 + b"\xff\xd9",
    "segment without a length": jpeg().replace(b"\xff\xdb\x00C", b"\xff\xdb\x00\x00", 1),
    "table of another number": jpeg().replace(b"\xff\xdb\x00C\x00", b"\xff\xdb\x00C\x0a", 1),
    "empty": b"",
    "no image": b"\xff\xd8\xff\xd9",
    "text": b"bees and wasps",
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_files_are_read(tmp_path, kind):
    path = tmp_path / "a.jpg"
    path.write_bytes(PLAIN[kind])
    with Image.open(path) as image:
        assert plain_jpeg_size(str(path)) == image.size
    header = read_header(str(path))
    assert read_headers([str(path)]) == [header] and header == ImageHeader(*image.size, "RGB", False, False, False)


@pytest.mark.parametrize("kind", OTHERS)
def test_everything_else_is_left_to_pil(tmp_path, kind):
    path = tmp_path / "a.jpg"
    path.write_bytes(OTHERS[kind])
    assert plain_jpeg_size(str(path)) is None
    (header,) = read_headers([str(path)])
    try:
        assert header == read_header(str(path))
    except OSError as error:
        assert isinstance(header, OSError) and str(header) == str(error)


def test_what_is_no_file_is_left_to_pil(tmp_path):
    assert plain_jpeg_size(str(tmp_path)) is None and plain_jpeg_size(str(tmp_path / "missing.jpg")) is None
    assert plain_jpeg_size("a\0b.jpg") is None
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        assert plain_jpeg_size(str(tmp_path / "pipe.jpg")) is None


def test_no_byte_of_the_header_makes_it_disagree_with_pil(tmp_path, rng_seed):
    rng = np.random.default_rng(rng_seed)
    path = tmp_path / "a.jpg"
    whole = PLAIN["optimised"]
    end = whole.index(b"\xff\xda") + 14
    agreed = 0
    for _ in range(400):
        data = bytearray(whole)
        data[rng.integers(2, end)] = rng.integers(0, 256)
        path.write_bytes(data)
        size = plain_jpeg_size(str(path))
        if size is not None:
            with Image.open(path) as image:
                assert (image.size, image.mode) == (size, "RGB") and not image.getexif()
            agreed += 1
    assert agreed > 20
