"""Files of arrays: whole or refused."""

import os

import numpy as np
import pytest

from maskrcnn_benchmark.utils import array_file
from maskrcnn_benchmark.utils.array_file import ArrayFile, ArrayFileError, write_arrays

ARRAYS = {
    "numbers": np.arange(1000, dtype=np.int64),
    "boxes": np.random.default_rng(0).random((333, 4), dtype=np.float32),
    "flags": np.array([True, False, True]),
    "none": np.zeros((0, 2), dtype=np.float32),
    "columns": np.arange(12).reshape(3, 4).T,
    "text": np.frombuffer(b"bees", dtype=np.uint8),
}


@pytest.fixture
def path(tmp_path):
    write_arrays(tmp_path / "a.table", {"made": ["of", 1, None]}, ARRAYS)
    return tmp_path / "a.table"


def test_arrays_return_as_written(path):
    file = ArrayFile(path)
    assert file.meta == {"made": ["of", 1, None]} and file.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        found = file.arrays[name]
        assert found.dtype == array.dtype and not found.flags.writeable
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("size", [0, 4, 30, 300, -64, -1])
def test_a_part_of_a_file_is_refused(path, size):
    data = path.read_bytes()
    path.write_bytes(data[:size])
    with pytest.raises(ArrayFileError):
        ArrayFile(path)


def test_a_longer_file_is_refused(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArrayFileError, match="bytes instead of"):
        ArrayFile(path)


def test_any_other_byte_is_noticed(path, rng_seed):
    data = path.read_bytes()
    used = len(data) - 60  # what fills up the last block is not checked
    for place in [*range(40), *np.random.default_rng(rng_seed).integers(0, used, 200).tolist()]:
        changed = bytearray(data)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        try:
            arrays = ArrayFile(path).arrays
        except (ArrayFileError, MemoryError):
            continue
        for name, array in ARRAYS.items():  # a byte between two arrays
            np.testing.assert_array_equal(arrays[name], array)


def test_exchanged_blocks_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(array_file, "TURN", 4096)
    path = tmp_path / "a.table"
    write_arrays(path, {}, {"numbers": np.arange(2048)})
    data = path.read_bytes()
    path.write_bytes(data[:-16384] + data[-12288:-8192] + data[-16384:-12288] + data[-8192:])
    with pytest.raises(ArrayFileError, match="bytes of numbers"):
        ArrayFile(path)


def test_writing_replaces_a_file_that_is_mapped(path):
    file = ArrayFile(path)
    write_arrays(path, {}, {"numbers": np.zeros(5)})
    np.testing.assert_array_equal(file.arrays["numbers"], ARRAYS["numbers"])
    assert ArrayFile(path).arrays["numbers"].tolist() == [0] * 5 and ArrayFile(path).crc != file.crc


def test_an_error_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    def fail(handle):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    before = path.read_bytes()
    with pytest.raises(OSError, match="no space"):
        write_arrays(path, {}, {"numbers": np.zeros(5)})
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
