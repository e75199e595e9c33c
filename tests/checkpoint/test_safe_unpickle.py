import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint.safe_unpickle import check_sound, load_pickled


class Calls:
    """Object that pickles to a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def write_pickle(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def write_legacy(path, value):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def global_(module, name):
    return f"c{module}\n{name}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


WRITERS = {"torch": lambda path, value: torch.save(value, path), "legacy": write_legacy, "pickle": write_pickle}


CODE = "open('executed', 'w').close()"
GADGETS = {
    "system": Calls(os.system, "touch executed"),
    "eval": Calls(eval, CODE),
    "exec": Calls(exec, CODE),
    "getattr": Calls(getattr, "text", "upper"),
    "open": Calls(open, "executed", "w"),
    "numpy.load": Calls(np.load, "inner.npy", None, True),
    "torch.serialization.load": Calls(torch.load, "inner.pth"),
    "Popen": Calls(subprocess.Popen, ["touch", "executed"]),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", GADGETS)
def test_hostile_files_are_refused_and_nothing_runs(tmp_path, monkeypatch, writer, nested, name):
    monkeypatch.chdir(tmp_path)
    hostile = GADGETS[name]
    if nested:
        hostile = {"model": {"weight": torch.ones(2) if writer != "pickle" else np.ones(2), "deep": [1, (hostile,)]}}
    path = tmp_path / "hostile.pth"
    WRITERS[writer](path, hostile)
    with pytest.raises(ValueError, match=rf"hostile\.pth.*{name}.*refused"):
        load_pickled(path)
    assert not (tmp_path / "executed").exists()


RAW = {
    # protocol 4: names with dots are resolved attribute by attribute
    "dotted name": b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x09os.system\x93.",
    "os.system, protocol 0": b"cos\nsystem\n(S'touch executed'\ntR.",
    "posix.system": b"\x80\x02" + global_("posix", "system") + text("touch executed") + b"\x85R.",
    "inst opcode": b"(S'touch executed'\nios\nsystem\n.",
    "obj opcode": b"\x80\x02(" + global_("os", "system") + text("touch executed") + b"o.",
    "python 2 name of eval": b"\x80\x02" + global_("__builtin__", "eval") + text(CODE) + b"\x85R.",
    "numpy object array": b"\x80\x02" + global_("numpy", "dtype") + text("O8") + b"\x85R.",
    "numpy structured dtype": b"\x80\x02" + global_("numpy", "dtype") + text("f8,f4") + b"\x85R.",
    "numpy f2py": b"\x80\x02" + global_("numpy.f2py.crackfortran", "param_eval") + b").",
    "persistent id": b"Psomething\n.",
    "setting attributes of a class": b"\x80\x02"
    + global_("numpy", "ndarray")
    + b"N}"
    + text("shape")
    + b"K\x01s\x86b.",
    "setting attributes of a function": b"\x80\x02"
    + global_("numpy.core.multiarray", "scalar")
    + b"N}"
    + text("hook")
    + b"K\x01s\x86b.",
}


@pytest.mark.parametrize("name", RAW)
def test_hostile_opcodes_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pkl"
    path.write_bytes(RAW[name])
    with pytest.raises(ValueError, match=r"hostile\.pkl"):
        load_pickled(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("writer", ["torch", "legacy"])
def test_errors_do_not_advise_executing_a_refused_file(tmp_path, writer):
    path = tmp_path / "objects.pth"
    WRITERS[writer](path, {"model": {"weight": torch.ones(2)}, "x": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="dtype.*refused") as refused:
        load_pickled(path)
    assert "weights_only" not in str(refused.value)


def test_bytearrays_are_read_but_not_allocated_from_a_number(tmp_path):
    path = tmp_path / "bytes.pkl"
    for protocol in range(pickle.HIGHEST_PROTOCOL):
        write_pickle(path, {"a": bytearray(b"\x00\xff"), "b": bytearray()}, protocol)
        assert load_pickled(path) == {"a": bytearray(b"\x00\xff"), "b": bytearray()}
    size = b"J" + struct.pack("<i", 2**31 - 1)
    path.write_bytes(b"\x80\x02" + global_("__builtin__", "bytearray") + size + b"\x85R.")
    with pytest.raises(ValueError, match=r"bytes\.pkl.*bytearray.*refused"):
        load_pickled(path)


@pytest.mark.parametrize("writer", ["torch", "legacy"])
def test_checkpoints_of_old_trainings_are_read(tmp_path, writer):
    weight = torch.rand(3, 2)
    old = {
        "model": collections.OrderedDict(weight=weight, tied=weight),
        "scheduler": {
            "milestones": collections.Counter([3, 3, 5]),
            "gamma": np.float64(0.1),
            "last_epoch": np.int64(4),
        },
        "optimizer": {
            "state": collections.defaultdict(dict, {0: {"momentum_buffer": weight}}),
            "param_groups": [{"lr": 1}],
        },
        "array": np.arange(6, dtype=">i4").reshape(2, 3),
        "flag": np.bool_(True),
        "names": np.array(["wasp", "bee"]),
    }
    path = tmp_path / "old.pth"
    WRITERS[writer](path, old)
    read = load_pickled(path)
    assert torch.equal(read["model"]["weight"], weight)
    assert read["model"]["weight"].data_ptr() == read["model"]["tied"].data_ptr()
    assert read["scheduler"] == old["scheduler"]
    assert torch.equal(read["optimizer"]["state"][0]["momentum_buffer"], weight)
    assert read["array"].tolist() == [[0, 1, 2], [3, 4, 5]] and read["flag"] and list(read["names"]) == ["wasp", "bee"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_arrays_are_read(tmp_path, rng_seed, protocol):
    blobs = {
        "w": np.random.rand(3, 2).astype(np.float32),
        "f": np.asfortranarray(np.random.rand(4, 2)),
        "n": np.float32(3),
    }
    path = tmp_path / "arrays.pkl"
    write_pickle(path, {"blobs": blobs, "cfg": "text", "list": [1, 2.5, None, True, b"bytes", {1}]}, protocol)
    read = load_pickled(path)
    assert read["cfg"] == "text" and read["list"] == [1, 2.5, None, True, b"bytes", {1}]
    for name, value in blobs.items():
        assert np.array_equal(read["blobs"][name], value) and read["blobs"][name].dtype == value.dtype


def test_python_2_pickles_are_read(tmp_path):
    data = np.array([1.0, -2.0], dtype="<f4").tobytes()
    python2 = (
        b"\x80\x02}q\x00U\x05blobsq\x01}q\x02U\x02w_q\x03"
        + global_("numpy.core.multiarray", "_reconstruct")
        + global_("numpy", "ndarray")
        + b"K\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        + global_("numpy", "dtype")
        + b"U\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"
        + data
        + b"tbss."
    )
    path = tmp_path / "python2.pkl"
    path.write_bytes(python2)
    assert load_pickled(path)["blobs"]["w_"].tolist() == [1.0, -2.0]


class Box:
    """Stand-in for a class of the package that an old file references."""

    def __init__(self, bbox):
        self.bbox = bbox


@pytest.mark.parametrize("writer", WRITERS)
def test_classes_are_read_only_if_allowed(tmp_path, monkeypatch, writer):
    old = types.ModuleType("fcos_core_of_old")
    old.BoxList = type("BoxList", (), {"__module__": "fcos_core_of_old"})
    monkeypatch.setitem(sys.modules, "fcos_core_of_old", old)
    value = old.BoxList()
    value.bbox = torch.ones(2, 4) if writer != "pickle" else [1]
    path = tmp_path / "predictions.pth"
    WRITERS[writer](path, [value])
    monkeypatch.delitem(sys.modules, "fcos_core_of_old")
    with pytest.raises(ValueError, match="fcos_core_of_old.BoxList"):
        load_pickled(path)
    (read,) = load_pickled(path, allow={("fcos_core_of_old", "BoxList"): Box})
    assert type(read) is Box and len(read.bbox) in (1, 2)


NO_CHECKPOINTS = {
    "empty": (b"", "empty file"),
    "zeros": (bytes(1000), "zeros"),
    "page": (b"\n<!DOCTYPE html><html>Not found</html>", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "text": (b"hello there\n", "text file.*hello"),
    "gzip": (b"\x1f\x8b\x08" + bytes(60), "compressed"),
    "tar": (b"a" * 257 + b"ustar" + bytes(300), "tar archive"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(range(100)), "neither"),
    "cut pickle": (pickle.dumps({"a": np.ones(100)}, 2)[:-40], "damaged"),
}


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_other_files_are_described(tmp_path, name):
    content, words = NO_CHECKPOINTS[name]
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.pth.*{words}"):
        load_pickled(path)


def test_folder_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        load_pickled(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        load_pickled(tmp_path / "nothing.pth")


@pytest.mark.parametrize("writer", ["torch", "legacy"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_truncated_files(tmp_path, writer, part):
    path = tmp_path / "torn.pth"
    WRITERS[writer](path, {"model": {"weight": torch.rand(100, 100)}})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    for read in (check_sound, load_pickled):
        with pytest.raises(ValueError, match=r"torn\.pth is damaged"):
            read(path)


def test_a_zip_that_is_not_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(ValueError, match=r"images\.zip"):
        load_pickled(path)


def test_random_damage_always_raises_value_error(tmp_path, rng_seed):
    buffer = io.BytesIO()
    pickle.dump({"w": np.random.rand(5), "n": [1, "a", (2.0, None)], "d": {"e": np.float32(1)}}, buffer, protocol=2)
    path = tmp_path / "fuzzed.pkl"
    for _ in range(300):
        damaged = bytearray(buffer.getvalue())
        for _ in range(np.random.randint(1, 4)):
            damaged[np.random.randint(2, len(damaged))] = np.random.randint(256)
        path.write_bytes(damaged)
        try:
            load_pickled(path)
        except ValueError as error:
            assert "fuzzed.pkl" in str(error)
