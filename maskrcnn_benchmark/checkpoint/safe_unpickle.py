"""Reading checkpoint files that may come from anywhere, without executing what is in them.

A pickle is a program: it may name any function of any module and call it. Two readers are used here, and both know a
fixed list of names only: torch.load(weights_only=True) for files of torch.save, and an unpickler of our own for plain
pickles (Caffe2, numpy). For numpy both get our own constructors instead of numpy's: those check dtypes and sizes, so
that a hostile file can't hand object arrays or crafted dtypes to numpy's C code.
"""

from __future__ import annotations

import collections
import os
import pickle
import re
import zipfile
from collections.abc import Mapping

import numpy as np
import torch

_DTYPE = re.compile(r"[<>=|]?(\?|b1|[iu][1248]|f[248]|c8|c16|[SUa]\d+)")
_LEGACY_TORCH_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_PROTOCOL_0 = re.compile(rb"\((d|l|t)|c[\w.]+\r?\n[\w.]+\r?\n|[}\]]")


def _as_bytes(data) -> bytes:
    # Python 2 wrote array contents as str; read with latin1 they arrive here as text.
    return data.encode("latin1") if isinstance(data, str) else bytes(data)


class _Dtype:
    """Stands for numpy.dtype while reading: plain numbers and fixed-length strings only."""

    __slots__ = ("value",)

    def __init__(self, spec, align=False, copy=False):
        spec = spec.decode("ascii") if isinstance(spec, bytes) else spec
        if not isinstance(spec, str) or not _DTYPE.fullmatch(spec):
            raise pickle.UnpicklingError(f"numpy dtype {spec!r} is refused: only numbers, bools and strings are read")
        self.value = np.dtype(spec)

    def __setstate__(self, state):
        byte_order, fields = state[1], state[2:5]
        byte_order = byte_order.decode("ascii") if isinstance(byte_order, bytes) else byte_order
        if byte_order not in ("<", ">", "=", "|") or any(fields):
            raise pickle.UnpicklingError(f"numpy dtype state {state!r} is refused: structured dtypes are not read")
        self.value = self.value.newbyteorder(byte_order)


class _Array(np.ndarray):
    """Stands for numpy.ndarray while reading; what is left after reading is an ordinary array of this subclass."""

    def __new__(cls, *args):
        return np.zeros(0, np.uint8).view(cls)

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError(f"an array with a dtype of type {type(dtype).__name__} is refused")
        super().__setstate__((1, shape, dtype.value, is_fortran, _as_bytes(data)))


def _reconstruct(subtype, shape, typecode):
    if subtype is not _Array:
        raise pickle.UnpicklingError(f"an array of type {subtype!r} is refused")
    return _Array()


def _array_from_buffer(data, dtype, shape, order):
    return np.frombuffer(_as_bytes(data), dtype.value).reshape(shape, order=order).copy()


def _scalar(dtype, data):
    return np.frombuffer(_as_bytes(data), dtype.value, count=1)[0]


def _encode(text, encoding="latin1"):
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8", "utf8"):
        raise pickle.UnpicklingError(f"text encoding {encoding!r} is refused")
    return text.encode(encoding)


def _bytearray(data=b"", encoding="latin1"):
    # bytearray(2**31) in thirty bytes of file would take 2 GiB
    if isinstance(data, int):
        raise pickle.UnpicklingError(f"a bytearray of {data} bytes without content is refused")
    return bytearray(_encode(data, encoding) if isinstance(data, str) else data)


def _plain_dict(default_factory=None, *args):
    # A defaultdict's factory is a call waiting to happen, so it becomes a plain dict.
    return dict(*args)


_ALLOWED = {
    "collections.defaultdict": _plain_dict,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    **{f"builtins.{kind.__name__}": kind for kind in (int, float, bool, str, list, tuple, dict, set, frozenset)},
}
for _package in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_package}.multiarray._reconstruct"] = _reconstruct
    _ALLOWED[f"{_package}.multiarray.scalar"] = _scalar
    _ALLOWED[f"{_package}.numeric._frombuffer"] = _array_from_buffer

# torch's reader has its own entries for these.
_ALLOWED_IN_PLAIN_PICKLES = {
    "collections.OrderedDict": collections.OrderedDict,
    "collections.Counter": collections.Counter,
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytearray,
    "builtins.complex": complex,
}


# The Python implementation, because the C one offers no way to see BUILD, which can set attributes of anything.
class _RestrictedUnpickler(pickle._Unpickler):
    def __init__(self, file, allowed: Mapping[str, object]):
        super().__init__(file, encoding="latin1")
        self.allowed = allowed

    def find_class(self, module, name):
        full_name = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full_name not in self.allowed:
            raise pickle.UnpicklingError(f"GLOBAL {full_name} is not an allowed global")
        return self.allowed[full_name]

    def persistent_load(self, pid):
        raise pickle.UnpicklingError(f"the reference {pid!r} to something outside the file is refused")

    def load_build(self):
        target = self.stack[-2]
        kinds = [kind for kind in self.allowed.values() if isinstance(kind, type)]
        if isinstance(target, type) or type(target) not in kinds:
            raise pickle.UnpicklingError(f"setting the state of a {type(target).__name__} is refused")
        super().load_build()

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


def _reason(error: pickle.UnpicklingError) -> str:
    # torch wraps what went wrong in the advice to execute the file, which nobody should follow
    message = str(error)
    found = re.search(r"WeightsUnpickler error:\s*(\S.*)", message) or re.search(r"(\S.*)", message)
    return found[1] if found else "damaged"


def what_it_seems_to_be(head: bytes, size: int) -> str | None:
    """Words for a file that is no checkpoint, by its first bytes; None when it may be one."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if size == 0:
        return "an empty file: a write or a download that was cut off"
    if not head.strip(b"\0"):
        return "a file of zeros: a write that was cut off"
    if text.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer: run `git lfs pull` to get the file it stands for"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page: the host answered with a page instead of the file; download it by hand"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")):
        return "a compressed archive: unpack it and give the file inside"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it and give the file inside (torch files from before version 0.2 are not read)"
    if head.startswith((b"PK\x03\x04", b"\x80")) or _PROTOCOL_0.match(head):
        return None
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return f"a text file starting with {head[:40].decode('utf-8', 'replace')!r}"
    return "neither a file of torch.save nor a pickle"


def is_complete(path: str | os.PathLike) -> bool:
    """Whether the file exists and, as far as its end can tell, was written to the end."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
        if head.startswith(b"PK\x03\x04"):  # the list of contents is the last thing in a zip file
            zipfile.ZipFile(path).close()
            return True
        return what_it_seems_to_be(head, os.path.getsize(path)) is None
    except (OSError, zipfile.BadZipFile):
        return False


def load_pickled(path: str | os.PathLike, allow: Mapping[tuple[str, str], type] | None = None):
    """What is in a file of torch.save (zip or the older format) or in a plain pickle; tensors on the CPU.

    Besides tensors and plain Python types, numpy arrays and scalars of numbers or strings are read, and nothing else.

    Args:
        allow: further classes, {(module, name) as written in the file: class to make}. Only their `__new__` and
            `__setstate__` (or `__dict__`) are used. For example
            {("maskrcnn_benchmark.structures.bounding_box", "BoxList"): BoxList} for a predictions.pth.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is something else, or names a class or function that is not allowed.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder; give the checkpoint file inside it, such as {path}/model_final.pth")
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {path} (working directory {os.getcwd()})")
    with open(path, "rb") as file:
        head = file.read(512)
    seems = what_it_seems_to_be(head, os.path.getsize(path))
    if seems:
        raise ValueError(f"{path} is not a checkpoint but {seems}")
    if head.startswith(b"PK\x03\x04") and not is_complete(path):
        raise ValueError(f"{path} is damaged or truncated (its end is missing): copy or download it again")

    allowed = dict(_ALLOWED)
    for (module, name), kind in (allow or {}).items():
        allowed[f"{module}.{name}"] = kind
    try:
        if head.startswith(b"PK\x03\x04") or head[2:].startswith(_LEGACY_TORCH_MAGIC):
            with torch.serialization.safe_globals([(kind, name) for name, kind in allowed.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
        with open(path, "rb") as file:
            return _RestrictedUnpickler(file, {**allowed, **_ALLOWED_IN_PLAIN_PICKLES}).load()
    except MemoryError as error:  # a damaged length looks like a wish for memory
        raise ValueError(f"{path} is damaged, or needs more memory than there is") from error
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise ValueError(
                f"{path} asks to call or create {refused[1]}, which a checkpoint has no need of, so it is refused; "
                "nothing of the file was executed. If you trust its author, load it with the program that wrote it "
                "and save its tensors alone."
            ) from error
        raise ValueError(f"{path} can't be read: {_reason(error)}") from error
    except Exception as error:  # a damaged pickle fails in as many ways as there are operations
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path} is damaged or is not a checkpoint ({reason})") from error
