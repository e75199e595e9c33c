"""Open a COCO json: annotation by annotation if its JSON is regular, otherwise as a whole.

msgspec splits the file into entries, each of which is parsed when its turn comes. For 43 MB of annotations that takes
0.2 s and 48 MB of memory; as a whole, json takes 1.5 s and 283 MB, and orjson 0.7 s and 415 MB.
"""

from __future__ import annotations

import codecs
import json
import mmap
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

import msgspec

from maskrcnn_benchmark.data.datasets.records import BATCH, ObjectRecord
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.utils.garbage_collection import without_garbage_collection
from maskrcnn_benchmark.utils.text_file import NotAFileError, did_you_mean, open_regular, read_text

Result = TypeVar("Result")

# Bytes that are checked to be UTF-8 at a time.
BLOCK = 1 << 22


class _Image(msgspec.Struct, gc=False):
    """An entry of "images", without what is not used of it: addresses and licences are most of its text."""

    id: Any = msgspec.UNSET
    file_name: Any = msgspec.UNSET
    coco_url: Any = None
    width: Any = None
    height: Any = None


class _Odd(Exception):
    """The file has something that only the general way reads, or refuses with a reason."""


def read_content(ann_file: str, report: DatasetReport, use: Callable[[dict], Result]) -> Result:
    """Call `use` with the content of a COCO json and return its result.

    "annotations" is an iterator of ObjectRecord where it can be. Parsed as a whole, COCO's training set takes 2.5 GB of
    lists and numbers. What is parsed is the same either way: where a file is not regular (NaN, half a surrogate,
    another encoding, an entry of another type), it is read again by `load_json`, which accepts it or raises its error.

    Args:
        report: findings that `use` adds before an irregular entry is met are taken back.
        use: called twice if such an entry is met.

    Raises:
        FileNotFoundError, OSError, ValueError: see `load_json`.
    """
    before = report.copy()
    try:
        with without_garbage_collection():
            return use(_regular_content(_map(ann_file)))
    except (_Odd, msgspec.MsgspecError, RecursionError):
        report.restore(before)
    return use(load_json(ann_file))


def _map(path: str) -> mmap.mmap:
    """Map a regular file into memory for reading.

    Raises:
        _Odd: there is none, or it is empty.
    """
    try:
        with open_regular(path) as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise _Odd from error


def _regular_content(text: mmap.mmap) -> dict:
    _check_utf8(text)
    content = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    data = {key: msgspec.json.decode(raw) for key, raw in content.items() if key == "categories"}
    if "images" in content:
        data["images"] = [_image_entry(image) for image in msgspec.json.decode(content["images"], type=list[_Image])]
    if "annotations" in content:
        entries = msgspec.json.decode(content["annotations"], type=list[msgspec.Raw] | None)
        data["annotations"] = None if entries is None else chain.from_iterable(_objects(entries, text))
    return data


def _image_entry(image: _Image) -> dict:
    if image.file_name is msgspec.UNSET:
        image.file_name = name_of_address(image.coco_url) or msgspec.UNSET
    if image.id is msgspec.UNSET or image.file_name is msgspec.UNSET:
        raise _Odd
    return {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}


def name_of_address(address) -> str | None:
    """Return folder and name of an image's "coco_url", which LVIS has instead of a file name; None for no address."""
    parts = address.split("/") if isinstance(address, str) else []
    return "/".join(parts[-2:]) if len(parts) > 3 else None


def _objects(entries: list[msgspec.Raw], text: mmap.mmap) -> Iterator[list[ObjectRecord]]:
    """Yield the entries decoded, some at a time."""
    decode = msgspec.json.Decoder(ObjectRecord).decode
    entries.reverse()
    while entries:
        _release(text)
        part = entries[-BATCH:]
        del entries[-BATCH:]
        part.reverse()
        yield list(map(decode, part))


def _release(text: mmap.mmap) -> None:
    """Give back the memory of a mapped file; what is read again comes from the page cache."""
    if hasattr(mmap, "MADV_DONTNEED"):
        text.madvise(mmap.MADV_DONTNEED)


def _check_utf8(text: mmap.mmap) -> None:
    """Look at all bytes: entries that are skipped are not decoded."""
    if text[:3] == codecs.BOM_UTF8:
        raise _Odd
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for begin in range(0, len(text), BLOCK):
            decoder.decode(text[begin : begin + BLOCK])
        _release(text)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _Odd from error


def load_json(ann_file: str) -> dict:
    """Return the content of a COCO json.

    Raises:
        FileNotFoundError: no such file.
        OSError: it is a folder, a named pipe, a socket or a device.
        ValueError: it is not text in UTF-8, UTF-16 or UTF-32, not JSON, or no object.
    """
    try:
        text = read_text(ann_file)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"annotation file {ann_file} does not exist.{did_you_mean(ann_file)} Is the data folder right "
            "(DATASETS.ROOT, or $MB_DATASETS)?"
        ) from None
    except (NotAFileError, ValueError) as error:
        raise type(error)(f"annotation file (ANNOTATIONS) {error}") from None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"annotation file {ann_file} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"annotation file {ann_file} holds a {type(data).__name__}; wanted a COCO instances file: an object with "
            f"'images', 'annotations' and 'categories'. (A list is what results look like.)"
        )
    return data
