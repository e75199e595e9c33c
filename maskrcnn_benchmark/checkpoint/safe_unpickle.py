"""Read untrusted checkpoint files without executing code.

A pickle is a program that may call any function of any module. Two readers are used here, both with a fixed list of
allowed names: torch.load(weights_only=True) for files of torch.save, and our own unpickler for plain pickles (Caffe2,
numpy). Both use our own constructors of numpy arrays, which check dtypes and sizes, so that a hostile file cannot pass
object arrays or crafted dtypes to numpy's C code. Before reading, pickle_scan checks the time and memory it would take,
and zip_check compares the checksums of the file.
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
    # bytearray(2**31) allocates 2 GiB for thirty bytes of file
    if isinstance(data, int):
        raise pickle.UnpicklingError(f"a bytearray of {data} bytes without content is refused")
    return bytearray(_encode(data, encoding) if isinstance(data, str) else data)


def _plain_dict(default_factory=None, *args):
    # a defaultdict's factory could be called later, so it becomes a plain dict
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

# torch's reader allows these itself.
_ALLOWED_IN_PLAIN_PICKLES = {
    "collections.OrderedDict": collections.OrderedDict,
    "collections.Counter": collections.Counter,
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytearray,
    "builtins.complex": complex,
}


# The Python implementation, because the C one cannot restrict BUILD, which can set attributes of any object.
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
        raise pickle.UnpicklingError(f"the reference {pid!r} to an object outside the file is refused")

    def load_build(self):
        target = self.stack[-2]
        kinds = [kind for kind in self.allowed.values() if isinstance(kind, type)]
        if isinstance(target, type) or type(target) not in kinds:
            raise pickle.UnpicklingError(f"setting the state of a {type(target).__name__} is refused")
        super().load_build()

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


def _reason(error: pickle.UnpicklingError) -> str:
    # torch embeds the reason in the advice to execute the file, which must not be followed
    message = str(error)
    found = re.search(r"WeightsUnpickler error:\s*(\S.*)", message) or re.search(r"(\S.*)", message)
    return found[1] if found else "damaged"


def what_it_seems_to_be(head: bytes, size: int) -> str | None:
    """Describe a file that is not a checkpoint, from its first bytes; None if it may be one."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if size == 0:
        return "an empty file: an interrupted write or download"
    if not head.strip(b"\0"):
        return "a file of zeros: an interrupted write"
    if text.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer: run `git lfs pull` to get the file"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page: the host returned a page instead of the file; download it by hand"
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
    """Check that `path` is a regular file, and return it as a string. Opening a named pipe would wait for a writer.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is a folder, a pipe or a device.
    """
    path = os.fspath(path)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if "\0" in path:
        raise ValueError(f"{path[:200]!r} is not a file name: it has a zero byte")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path} (working directory {os.getcwd()})") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a folder; give the checkpoint file inside it, such as {path}/model_final.pth")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a regular file but a pipe or a device; give a checkpoint file")
    return path


def _scan_legacy(data, start: int = 0) -> list[Scan]:
    """Scan the pickles of torch's older format: magic number, protocol, system, object, keys of the storages."""
    scans = []
    for _ in range(5):
        scans.append(scan_pickle(data, scans[-1].end if scans else start))
    return scans


def check_sound(path: str | os.PathLike) -> None:
    """Read a checkpoint completely and raise if it is damaged.

    Files of torch.save in zip format are compared with their checksums; others are read with `load_pickled`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged or not a checkpoint.
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
        logger.info("%s has no checksums: damaged numbers can't be detected", path)
    with torch.serialization.safe_globals([(kind, name) for name, kind in allowed.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_plain(path: str, allowed: Mapping[str, object]):
    with open(path, "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            scan_pickle(data)
        return _RestrictedUnpickler(file, {**allowed, **_ALLOWED_IN_PLAIN_PICKLES}).load()


def _read(path: str, reader, *args):
    """Return reader(path, *args); any exception is converted to a ValueError that names the file."""
    try:
        return reader(path, *args)
    except NotACheckpoint as error:
        raise ValueError(f"{path} is not a checkpoint but {error}") from error
    except MemoryError as error:  # a damaged length may request any amount of memory
        raise ValueError(f"{path} is damaged, or requires more memory than available") from error
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise ValueError(
                f"{path} calls or creates {refused[1][:200]}, which checkpoints do not use, so it is refused; nothing "
                "in the file was executed. If you trust its author, load it with the program that wrote it and save "
                "only its tensors."
            ) from error
        raise ValueError(f"{path} can't be read: {_reason(error)[:_LONGEST_REASON]}") from error
    except Exception as error:  # a damaged file may raise any exception
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0][:_LONGEST_REASON]
        raise ValueError(f"{path} is damaged or is not a checkpoint ({reason}): copy or download it again") from error


def load_pickled(path: str | os.PathLike, allow: Mapping[tuple[str, str], type] | None = None):
    """Read a file of torch.save (zip or the older format) or a plain pickle, with tensors on the CPU.

    Only tensors, plain Python types, and numpy arrays and scalars of numbers or strings are read.

    Args:
        path: path of the file.
        allow: further classes, {(module, name) as in the file: class to create}. Only their `__new__` and
            `__setstate__` (or `__dict__`) are used. For example
            {("maskrcnn_benchmark.structures.bounding_box", "BoxList"): BoxList} for a predictions.pth.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, is not a checkpoint, names a class or function that is not allowed, or would
            take too much time or memory for its size.
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
