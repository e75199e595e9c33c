"""Read a COCO json: annotation by annotation if its JSON is regular, otherwise as a whole.

msgspec splits the file into entries, which are parsed a batch at a time. For 43 MB of annotations that takes 0.2 s and
48 MB of memory; as a whole, json takes 1.5 s and 283 MB, and orjson 0.7 s and 415 MB.
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

# Bytes per step of the UTF-8 check.
BLOCK = 1 << 22


class _Image(msgspec.Struct, gc=False):
    """Entry of "images", with only the keys that are used. URLs and licences, most of its text, are skipped."""

    id: Any = msgspec.UNSET
    file_name: Any = msgspec.UNSET
    coco_url: Any = None
    width: Any = None
    height: Any = None


class _Odd(Exception):
    """The file is irregular: only `load_json` can read it, or explain why it cannot be read."""


def read_content(ann_file: str, report: DatasetReport, use: Callable[[dict], Result]) -> Result:
    """Call `use` with the content of a COCO json and return its result.

    If the file is regular, "annotations" is an iterator of ObjectRecord; parsed as a whole, COCO's training set takes
    2.5 GB of lists and numbers. An irregular file (NaN, half a surrogate pair, another encoding, an entry of another
    type) is read again as a whole by `load_json`, which accepts it or raises. Both ways give the same values.

    Args:
        report: if an irregular entry is met, the findings that `use` has added so far are removed.
        use: called again from the start if an irregular entry is met.

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
        _Odd: the file does not exist, is not a regular file, or is empty.
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
    """Return FOLDER/NAME from a "coco_url", which LVIS has instead of "file_name"; None if it is not a URL."""
    parts = address.split("/") if isinstance(address, str) else []
    return "/".join(parts[-2:]) if len(parts) > 3 else None


def _objects(entries: list[msgspec.Raw], text: mmap.mmap) -> Iterator[list[ObjectRecord]]:
    """Decode the entries and yield BATCH at a time. `entries` is emptied."""
    decode = msgspec.json.Decoder(ObjectRecord).decode
    entries.reverse()
    while entries:
        _release(text)
        part = entries[-BATCH:]
        del entries[-BATCH:]
        part.reverse()
        yield list(map(decode, part))


def _release(text: mmap.mmap) -> None:
    """Release the memory of a mapped file. Pages that are read again come from the page cache."""
    if hasattr(mmap, "MADV_DONTNEED"):
        text.madvise(mmap.MADV_DONTNEED)


def _check_utf8(text: mmap.mmap) -> None:
    """Raise _Odd unless all bytes are UTF-8 without a byte order mark. msgspec does not decode what it skips."""
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
        ValueError: it is not text in UTF-8, UTF-16 or UTF-32, not JSON, or not an object.
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
