"""Arrays in one file that processes map into memory, so that they share its pages.

Layout: MAGIC; the length of the header, its CRC-32 (two little-endian uint64); the header, JSON with "meta", and with
dtype, shape, offset and checksum by the name of each array; the arrays, aligned to 64 bytes.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Mapping

import numpy as np

from maskrcnn_benchmark.utils.atomic_write import atomic_write

MAGIC = b"MBARRAY1"
_LENGTHS = struct.Struct("<QQ")
ALIGNMENT = 64
# Bytes per block of a checksum.
TURN = 1 << 22


class ArrayFileError(ValueError):
    """Raised for a file that is not an array file, is incomplete, or has changed."""


def write_arrays(path: str, meta: dict, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a file, completely or not at all, see `atomic_write`.

    Args:
        meta: metadata that can be serialized as JSON.
        arrays: arrays of numbers or bool, by name.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    described = {
        name: {"dtype": array.dtype.str, "shape": array.shape, "checksum": _checksum(_bytes_of(array))}
        for name, array in arrays.items()
    }
    offset = 0
    for name, array in arrays.items():
        described[name]["offset"] = offset  # from the first byte of the first array
        offset += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    header = json.dumps({"meta": meta, "arrays": described, "size": offset}).encode()
    with atomic_write(path) as file:
        file.write(MAGIC + _LENGTHS.pack(len(header), zlib.crc32(header)) + header)
        file.write(bytes(_first_byte(len(header)) - file.tell()))
        for array in arrays.values():
            file.write(_bytes_of(array))
            file.write(bytes(-array.nbytes % ALIGNMENT))


class ArrayFile:
    """A file written by `write_arrays`, mapped read-only.

    Args:
        path: the file.
        check: compare all bytes with their checksums. That takes a tenth of a second for 500 MB in the page cache, and
            no memory.

    Attributes:
        meta: metadata as written.
        arrays: read-only arrays by name.
        crc: CRC-32 of the header. It identifies the content, because the header has the checksums of the arrays.

    Raises:
        FileNotFoundError, OSError: the file cannot be opened.
        ArrayFileError: it is not an array file, or incomplete, or its bytes have changed.
    """

    def __init__(self, path: str, check: bool = True):
        self.path = path
        with open(path, "rb") as file:
            header, first = self._read_header(file)
            size = os.fstat(file.fileno()).st_size
            if size != first + header["size"]:
                raise ArrayFileError(f"{path} has {size:,} bytes instead of {first + header['size']:,}")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.meta, self.arrays = header["meta"], {}
            for name, entry in header["arrays"].items():
                dtype, count = np.dtype(entry["dtype"]), int(np.prod(entry["shape"], dtype=np.int64))
                begin = first + entry["offset"]
                if check and _checksum_of_file(file, begin, dtype.itemsize * count) != entry["checksum"]:
                    raise ArrayFileError(f"the bytes of {name} in {path} have changed")
                self.arrays[name] = np.frombuffer(mapped, dtype, count, begin).reshape(entry["shape"])

    def _read_header(self, file) -> tuple[dict, int]:
        start = file.read(len(MAGIC) + _LENGTHS.size)
        if len(start) < len(MAGIC) + _LENGTHS.size or start[: len(MAGIC)] != MAGIC:
            raise ArrayFileError(f"{self.path} is not a file of arrays")
        length, self.crc = _LENGTHS.unpack(start[len(MAGIC) :])
        text = file.read(min(length, 1 << 30))
        if len(text) != length or zlib.crc32(text) != self.crc:
            raise ArrayFileError(f"the header of {self.path} is incomplete or has changed")
        return json.loads(text), _first_byte(length)


def _first_byte(header_length: int) -> int:
    return -(-(len(MAGIC) + _LENGTHS.size + header_length) // ALIGNMENT) * ALIGNMENT


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _checksum(data: np.ndarray) -> int:
    """Sum 64-bit words, with each block of TURN bytes weighted by its number, to detect zeroed and swapped blocks."""
    total = 0
    for number, begin in enumerate(range(0, len(data), TURN), start=1):
        total += number * _sum(data[begin : begin + TURN])
    return total % 2**64


def _sum(data: np.ndarray) -> int:
    words = len(data) // 8 * 8
    tail = int.from_bytes(data[words:].tobytes(), "little")
    return int(np.frombuffer(data[:words], dtype="<u8").sum(dtype=np.uint64)) + tail


def _checksum_of_file(file, begin: int, length: int) -> int:
    file.seek(begin)
    buffer, total, number = np.empty(TURN, dtype=np.uint8), 0, 0
    while length > 0:
        part = buffer[: min(length, TURN)]
        if file.readinto(part) != len(part):
            return -1
        number += 1
        total += number * _sum(part)
        length -= len(part)
    return total % 2**64
