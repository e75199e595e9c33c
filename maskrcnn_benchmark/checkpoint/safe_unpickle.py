"""Read checkpoint files that may come from anywhere, without executing what is in them.

A pickle is a program: it may name any function of any module and call it. Two readers are used here, and both have a
fixed list of names only: torch.load(weights_only=True) for files of torch.save, and an unpickler of our own for plain
pickles (Caffe2, numpy). For numpy both get our own constructors instead of numpy's: those check dtypes and sizes, so
that a hostile file can't hand object arrays or crafted dtypes to numpy's C code. Before either runs, pickle_scan
checks what reading would cost, and zip_check compares the checksums of the file.
"""

from __future__ import annotations

import collections
import logging
import mmap
import os
import pickle
import re
import stat
from collections.abc import Mapping

import torch

from .numpy_unpickle import Array, Dtype, array_from_buffer, reconstruct, scalar
from .pickle_bounds import BYTES_PER_OPERATION
from .pickle_scan import Scan, scan_pickle
from .tensor_bounds import check_expansion, check_storages
from .zip_check import NotACheckpoint, check_zip

logger = logging.getLogger("maskrcnn_benchmark.utils.checkpoint")

_LEGACY_TORCH_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_LONGEST_REASON = 600
_PROTOCOL_0 = re.compile(rb"\((d|l|t)|c[\w.]+\r?\n[\w.]+\r?\n|[}\]]")


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
    "numpy.dtype": Dtype,
    "numpy.ndarray": Array,
    **{f"builtins.{kind.__name__}": kind for kind in (int, float, bool, str, list, tuple, dict, set, frozenset)},
}
for _package in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_package}.multiarray._reconstruct"] = reconstruct
    _ALLOWED[f"{_package}.multiarray.scalar"] = scalar
    _ALLOWED[f"{_package}.numeric._frombuffer"] = array_from_buffer

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


def check_regular(path: str | os.PathLike) -> str:
    """Return `path` as text if it is an ordinary file; opening a named pipe would wait for a writer.

    Raises:
        FileNotFoundError, ValueError: it is missing, or is a folder, a pipe or a device.
    """
    path = os.fspath(path)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if "\0" in path:
        raise ValueError(f"{path[:200]!r} is no name of a file: it has a zero byte")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path} (working directory {os.getcwd()})") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a folder; give the checkpoint file inside it, such as {path}/model_final.pth")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is no ordinary file but a pipe or a device; give a checkpoint file")
    return path


def _scan_legacy(data, start: int = 0) -> list[Scan]:
    """Scan the pickles of torch's older format: magic number, protocol, system, object, keys of the storages."""
    scans = []
    for _ in range(5):
        scans.append(scan_pickle(data, scans[-1].end if scans else start))
    return scans


def check_sound(path: str | os.PathLike) -> None:
    """Read a checkpoint through and raise what is wrong with it.

    Files of torch.save in zip format are compared with their checksums; others are read as `load_pickled` does.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged or no checkpoint.
    """
    path = check_regular(path)
    try:
        with open(path, "rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        if is_zip:
            _read(path, _check_zip)
        else:
            load_pickled(path)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}") from error


def is_complete(path: str | os.PathLike) -> bool:
    """Whether `check_sound` finds nothing wrong with the file."""
    try:
        check_sound(path)
    except (OSError, ValueError):
        return False
    return True


def _check_zip(path: str, has_objects: bool = False):
    facts = check_zip(path)
    scan = scan_pickle(facts.pickled, bytes_per_operation=1 if has_objects else BYTES_PER_OPERATION)
    check_storages(scan.persistent_ids, os.path.getsize(path) << 5, facts.sizes)
    return facts


def _read_torch(path: str, allowed: Mapping[str, object]):
    """Read a file of torch.save in either format."""
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
        has_checksums = is_zip and _check_zip(path, len(allowed) > len(_ALLOWED)).has_checksums
        if not is_zip:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                scans = _scan_legacy(data)
                check_storages(scans[3].persistent_ids, len(data))
    if not has_checksums:
        logger.info("%s has no checksums: damage to its numbers can't be noticed", path)
    with torch.serialization.safe_globals([(kind, name) for name, kind in allowed.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_plain(path: str, allowed: Mapping[str, object]):
    with open(path, "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            scan_pickle(data)
        return _RestrictedUnpickler(file, {**allowed, **_ALLOWED_IN_PLAIN_PICKLES}).load()


def _read(path: str, reader, *args):
    """Return reader(path, *args); whatever goes wrong in it becomes a ValueError that names the file."""
    try:
        return reader(path, *args)
    except NotACheckpoint as error:
        raise ValueError(f"{path} is not a checkpoint but {error}") from error
    except MemoryError as error:  # a damaged length looks like a request for memory
        raise ValueError(f"{path} is damaged, or needs more memory than there is") from error
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise ValueError(
                f"{path} asks to call or create {refused[1][:200]}, which a checkpoint has no need of, so it is "
                "refused; nothing of the file was executed. If you trust its author, load it with the program that "
                "wrote it and save its tensors alone."
            ) from error
        raise ValueError(f"{path} can't be read: {_reason(error)[:_LONGEST_REASON]}") from error
    except Exception as error:  # a damaged file fails in as many ways as there are operations
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0][:_LONGEST_REASON]
        raise ValueError(f"{path} is damaged or is not a checkpoint ({reason}): copy or download it again") from error


def load_pickled(path: str | os.PathLike, allow: Mapping[tuple[str, str], type] | None = None):
    """Read a file of torch.save (zip or the older format) or a plain pickle; tensors arrive on the CPU.

    Besides tensors and plain Python types, numpy arrays and scalars of numbers or strings are read, and nothing else.

    Args:
        allow: further classes, {(module, name) as written in the file: class to make}. Only their `__new__` and
            `__setstate__` (or `__dict__`) are used. For example
            {("maskrcnn_benchmark.structures.bounding_box", "BoxList"): BoxList} for a predictions.pth.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is something else, names a class or function that is not allowed, or would cost
            time or memory out of proportion to its size.
    """
    path = check_regular(path)
    with open(path, "rb") as file:
        head = file.read(512)
    seems = what_it_seems_to_be(head, os.path.getsize(path))
    if seems:
        raise ValueError(f"{path} is not a checkpoint but {seems}")
    allowed = dict(_ALLOWED)
    for (module, name), kind in (allow or {}).items():
        allowed[f"{module}.{name}"] = kind
    of_torch = head.startswith(b"PK\x03\x04") or head[2:].startswith(_LEGACY_TORCH_MAGIC)
    loaded = _read(path, _read_torch if of_torch else _read_plain, allowed)
    _read(path, lambda _: check_expansion(loaded, os.path.getsize(path)))
    return loaded
