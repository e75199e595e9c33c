"""Read and write .safetensors: the length of a JSON header (8 bytes, little-endian), the header, the tensors.

The header gives the dtype, the shape and the byte range of each tensor. Such files cannot execute code, and reading
them requires no package. The format has no checksum; files written here have one in their metadata.
"""

from __future__ import annotations

import json
import logging
import math
import os
import struct
import zlib
from collections.abc import Mapping

import torch

from maskrcnn_benchmark.utils.atomic_write import atomic_write

from .load_report import shortened

logger = logging.getLogger("maskrcnn_benchmark.utils.checkpoint")

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# The format allows headers of 100 MB. A detector of ten thousand tensors takes 1 MB.
_LONGEST_HEADER = 16_000_000
_MOST_TENSORS = 20_000  # as in matching.py, which reads no more
_MOST_NUMBERS = 10 * _MOST_TENSORS  # of all shapes and offsets
_MOST_DIMENSIONS = 32
_LARGEST = 1 << 62
_METADATA = "__metadata__"
_CHECKSUM = "maskrcnn_benchmark.crc32"


def is_safetensors(path: str | os.PathLike) -> bool:
    """Return whether a file starts like a .safetensors: a length that fits the file, then a JSON object."""
    try:
        if not os.path.isfile(path):  # opening a named pipe would wait for a writer
            return False
        with open(path, "rb") as file:
            head = file.read(9)
        return len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] + 8 <= os.path.getsize(path)
    except (OSError, ValueError):
        return False


def read_safetensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read the tensors by name, on the CPU.

    Raises:
        ValueError: the file is damaged, or has an unsupported dtype; the message names the tensor.
    """
    try:
        with open(path, "rb") as file:
            header, start = _read_header(file)
            entries = _entries(header, os.path.getsize(path) - start)
            checksum = _header_checksum(entries)
            tensors = {}
            for name, (kind, shape, first, last) in sorted(entries.items(), key=lambda entry: entry[1][2:]):
                data = bytearray(last - first)
                file.seek(start + first)
                if file.readinto(data) != len(data):
                    raise ValueError(f"it ends in the middle of tensor {shortened(name)!r}")
                checksum = zlib.crc32(data, checksum)
                dtype = _DTYPES[kind]
                tensors[name] = (
                    torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)
                )
        metadata = header.get(_METADATA)
        expected = metadata.get(_CHECKSUM) if isinstance(metadata, dict) else None
        if expected is None:
            logger.info("%s has no checksums: damaged numbers can't be detected", path)
        elif expected != f"{checksum:08x}":
            raise ValueError("its content does not match its checksum: copy or download it again")
    except MemoryError as error:
        raise ValueError(f"{path} is damaged, or requires more memory than available") from error
    except (ValueError, RecursionError, RuntimeError, OverflowError, TypeError) as error:
        raise ValueError(f"{path} is damaged or can't be read: {shortened(str(error), 600)}") from error
    return {name: tensors[name] for name in entries}


def _read_header(file) -> tuple[dict, int]:
    """Return the JSON object and the offset after it."""
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header would have {length:,} bytes")
    text = file.read(length)
    # checked before parsing, as objects take many times the memory of their text
    if text.count(b"{") > _MOST_TENSORS + 2 or text.count(b",") > _MOST_NUMBERS or text.count(b"[") > 2 * _MOST_TENSORS:
        raise ValueError(f"its header has more than {_MOST_TENSORS:,} tensors or {_MOST_NUMBERS:,} numbers")
    try:
        header = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"its header is not JSON ({error.msg} at {error.pos})") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, 8 + length


def _without_repeats(pairs: list) -> dict:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the name {shortened(name)!r} is repeated")
    return made


def _is_size(value) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _entries(header: dict, size: int) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Check that tensors fill `size` bytes without overlaps, and return (dtype, shape, first byte, end) by name."""
    entries = {}
    for name, entry in header.items():
        if name == _METADATA:
            continue
        where = f"tensor {shortened(name)!r}"
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise ValueError(f"{where} lacks dtype, shape or data_offsets")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in _DTYPES:
            raise ValueError(f"{where}: dtype {shortened(str(kind))} is not supported, only {', '.join(_DTYPES)}")
        if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or not all(map(_is_size, shape)):
            raise ValueError(f"{where}: shape {shortened(str(shape))}")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
            raise ValueError(f"{where}: data_offsets {shortened(str(offsets))}")
        first, last = offsets
        if not first <= last <= size or last - first != math.prod(shape) * _DTYPES[kind].itemsize:
            raise ValueError(f"{where}: shape {shape} of {kind} at bytes {first} to {last} of {size}")
        entries[name] = (kind, tuple(shape), first, last)
    end = 0
    for name, (_, _, first, last) in sorted(entries.items(), key=lambda entry: entry[1][2:]):
        if first != end:
            what = "overlaps another" if first < end else "leaves a gap before it"
            raise ValueError(f"tensor {shortened(name)!r} at bytes {first} to {last} {what}")
        end = last
    if end != size:
        raise ValueError(f"the tensors end at byte {end} of {size}")
    return entries


def _header_checksum(entries: Mapping) -> int:
    return zlib.crc32(json.dumps(sorted(entries.items())).encode())


def write_safetensors(path: str | os.PathLike, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors by name, atomically, with a checksum in the metadata.

    Raises:
        TypeError: a tensor has a dtype that the format does not support.
    """
    entries, start = {}, 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise TypeError(f"tensor {name!r} is {tensor.dtype}; .safetensors supports {', '.join(_NAMES.values())}")
        end = start + tensor.numel() * tensor.element_size()
        entries[name] = (_NAMES[tensor.dtype], tuple(tensor.shape), start, end)
        start = end
    checksum = _header_checksum(entries)
    for tensor in tensors.values():
        checksum = zlib.crc32(_bytes_of(tensor), checksum)
    header = {_METADATA: {"format": "pt", _CHECKSUM: f"{checksum:08x}"}}
    for name, (kind, shape, first, last) in entries.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [first, last]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # align the tensors to 8 bytes
    with atomic_write(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(_bytes_of(tensor))


def _bytes_of(tensor: torch.Tensor):
    return memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
