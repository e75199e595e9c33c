import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint import pickle_bounds
from maskrcnn_benchmark.checkpoint.pickle_scan import scan_pickle
from maskrcnn_benchmark.checkpoint.safe_unpickle import load_pickled


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def long(value):
    size = value.bit_length() // 8 + 1
    return b"\x8b" + struct.pack("<i", size) + value.to_bytes(size, "little", signed=True)


DOUBLE = b"q\x00h\x00"  # store the top of the stack in the memo, and push it again
TUPLES = b"N" + b"".join(b"q\x00h\x00\x86" for _ in range(40))
LISTS = b"]" + b"".join(b"q\x01](h\x01h\x01eq\x01" for _ in range(60))
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
ARRAY += b"(K\x01%scnumpy\ndtype\n%sK\x00K\x01\x87R\x89%stb."

HOSTILE = {
    "doubling tuples": TUPLES + b".",
    "doubling tuples as a key": b"}" + TUPLES + b"Ns.",
    "doubling tuples as an element": b"\x8f(" + TUPLES + b"\x90.",
    "doubling tuples as frozenset": b"(" + TUPLES + b"\x91.",
    "doubling tuples in a set": b"c__builtin__\nset\n]" + TUPLES + b"a\x85R.",
    "text of doubling tuples": b"c__builtin__\nstr\n" + TUPLES + b"\x85R.",
    "text of doubling lists": b"c__builtin__\nstr\n" + LISTS + b"\x85R.",
    "doubling lists": LISTS + b".",
    "doubling dicts": b"}" + b"".join(b"q\x01}(K\x00h\x01K\x01h\x01uq\x01" for _ in range(60)) + b".",
    "doubling calls": b")" + b"".join(b"q\x01c__builtin__\nlist\nh\x01h\x01\x86\x85Rq\x01" for _ in range(60)) + b".",
    "doubling objects": b")" + b"".join(b"q\x010c__builtin__\nlist\n)\x81h\x01ah\x01aq\x01" for _ in range(60)) + b".",
    "a list in itself": b"]q\x00h\x00a.",
    "a dict in itself": b"}q\x00K\x01h\x00s.",
    "deep tuples": b"N" + b"\x85" * 100_000 + b".",
    "deep lists": b"]" * 50_000 + b"a" * 49_999 + b".",
    "deep key": b"}" + b"N" + b"\x85" * 100_000 + b"Ns.",
    "marks": b"(" * 100_000 + b".",
    "colliding keys": b"}(" + b"".join(long(i * ((1 << 61) - 1)) + b"N" for i in range(1, 30_000)) + b"u.",
    "colliding elements": b"\x8f(" + b"".join(long(i * ((1 << 61) - 1)) for i in range(1, 30_000)) + b"\x90.",
    "a long integer": long(1 << 4_000_000) + b".",
    "a long integer in digits": b"I" + b"9" * 400_000 + b"\n.",
    "a negative length": b"\x8b" + struct.pack("<i", -5) + b".",
    "memo 2**32-1": b"Nr\xff\xff\xff\xff.",
    "memo in digits": b"Np" + b"9" * 30 + b"\n.",
    "bytes of 2**40": b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytearray of 2**40": b"\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "text of 2**62": b"\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "frame of 2**62": b"\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "copied text": text("x" * 100_000)
    + b"q\x00"
    + b"".join(b"c_codecs\nencode\nh\x00\x85R" for _ in range(5000))
    + b".",
    "bytearray from a number": b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "extension": b"\x82\x01.",
    "out-of-band buffer": b"\x97.",
    "empty stack": b"0000.",
    "no stop": b"NNNN",
    "giant shape": ARRAY % (b"\x8a\x06\x00\x00\x00\x00\x00\x40K\x01\x86", b"U\x02f4", b"U\x00"),
    "shape that overflows": ARRAY % (b"(" + 4 * b"\x8a\x05\x00\x00\x00\x00\x01" + b"t", b"U\x02f4", b"U\x00"),
    "shape of many factors": ARRAY % (b"(" + b"K\x01" * 100_000 + b"t", b"U\x02u1", b"U\x01x"),
    "items without bytes": ARRAY % (b"J\xff\xff\xff\x7f\x85", b"U\x02S0", b"U\x00"),
}


def as_pickle(path, program):
    path.write_bytes(b"\x80\x02" + program)


def as_zip(path, program):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + program)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/version", "3\n")


def as_legacy(path, program):
    torch.save({}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    end = 0
    for _ in range(3):
        end = scan_pickle(content, end).end
    path.write_bytes(content[:end] + b"\x80\x02" + program + pickle.dumps([], 2))


@pytest.mark.parametrize("write", [as_pickle, as_zip, as_legacy])
@pytest.mark.parametrize("name", HOSTILE)
def test_costly_pickles_are_refused_quickly_with_short_errors(tmp_path, write, name):
    path = tmp_path / "hostile.pth"
    write(path, HOSTILE[name])
    start = time.process_time()
    with pytest.raises(ValueError, match=r"hostile\.pth") as refused:
        load_pickled(path)
    assert time.process_time() - start < 5 and len(str(refused.value)) < 2000


def test_the_number_of_operations_is_bounded(monkeypatch):
    monkeypatch.setattr(pickle_bounds, "MOST_OPERATIONS", 1000)
    assert len(scan_pickle(b"\x80\x02](" + b"]" * 900 + b"e.").value) == 900
    with pytest.raises(pickle.UnpicklingError, match="more than 1,000 operations"):
        scan_pickle(b"\x80\x02](" + b"]" * 1000 + b"e.")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ordinary_pickles_pass_and_the_end_offset_is_correct(rng_seed, protocol):
    names = ["a" * 300] * 1000
    value = {
        "arrays": [np.random.rand(50, 3), np.float32(2), np.arange(3)],
        "names": names,
        "nested": {str(i): [{"x": (i, (i, [i]))}] for i in range(200)},
        "set": {1, "a", (2, 3), frozenset([4])},
        "numbers": [0, -1, 1 << 70, 2.5, True, None, b"bytes" * 100, bytearray(b"x")],
    }
    data = pickle.dumps(value, protocol)
    assert scan_pickle(data + b"more").end == len(data)


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_storage_larger_than_the_file_is_damage(tmp_path, zip_format):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.rand(300)}, path, _use_new_zipfile_serialization=zip_format)
    more = b"J\x00\x00\x00\x10"  # 2**28 elements instead of 300
    if zip_format:
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in records.items():
                archive.writestr(name, content.replace(b"M,\x01", more) if name.endswith("data.pkl") else content)
    else:
        path.write_bytes(path.read_bytes().replace(b"M,\x01", more))
    with pytest.raises(ValueError, match=r"x\.pth is damaged.*storage"):
        load_pickled(path)


@pytest.mark.parametrize("zip_format", [True, False])
def test_tensors_that_grow_when_copied_are_refused(tmp_path, zip_format):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.ones(1).expand(1 << 20, 1 << 10)}, path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(ValueError, match=r"x\.pth.*share their memory.*refused"):
        load_pickled(path)
    torch.save({"a": torch.ones(1).expand(50, 20)}, path, _use_new_zipfile_serialization=zip_format)
    assert load_pickled(path)["a"].shape == (50, 20)
