"""Write files completely or not at all.

A file is written as `.NAME.HOST.RANDOM.tmp` beside its own name, and then moved. The writer holds a lock (flock) on it,
which the system releases when the process ends, however it ends. A temporary file that can be locked is therefore left
over; process ids would not show that, because every container counts processes from 1. Other machines may not see the
lock, and some file systems have none: there, a file not written to for LEFT_OVER seconds is left over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import time

try:
    import fcntl
except ImportError:  # Windows, which does not remove open files
    fcntl = None

# Seconds without a write after which a temporary file of another machine, or one without a lock, is left over.
LEFT_OVER = 86_400.0

# Characters of the name and of the host in a temporary name: file systems allow 255 bytes.
NAME_PART, HOST_PART = 40, 40

_TEMPORARY = re.compile(r"\..+\.(?P<host>[^.]+)\.[0-9a-f]{16}\.tmp", re.DOTALL)

# Folders in which this process has removed left-over files. Once is enough, and a folder may have a million files.
_cleaned: set[str] = set()


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike):
    """Open a temporary binary file beside `path`, and move it to `path` when the block ends without an error.

    A reader sees the old file or the new one, never a part, whenever the process or the machine stops: the data are on
    the disk before the name is. After an error the old file is unchanged, and the temporary one is removed. If
    several processes or threads write the same file, the last one wins. Missing folders are created. When this process
    first writes to a folder, it removes temporary files that killed processes left there.
    """
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    if folder not in _cleaned:
        _cleaned.add(folder)
        remove_left_over(folder)
    file = _create(folder, name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:  # moved while it is locked, so that it is not taken for left over
                os.replace(file.name, path)
        if fcntl is None:
            os.replace(file.name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(file.name)
        raise
    _sync_folder(folder)


def remove_left_over(folder: str) -> None:
    """Remove the temporary files of `atomic_write` in a folder whose writers have ended."""
    host = _host()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if found:
                with contextlib.suppress(OSError):
                    _remove_if_left_over(entry.path, found["host"] == host)


def write_json(path: str | os.PathLike, content, indent: int | None = None) -> None:
    """Write content as JSON, atomically.

    Raises:
        ValueError: a number in it is not finite, which JSON cannot represent.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=indent, allow_nan=False).encode())


def _create(folder: str, name: str):
    """Create a temporary file for `name`, locked if the file system has locks."""
    while True:
        temporary = f".{_start_of(name, NAME_PART)}.{_host()}.{secrets.token_hex(8)}.tmp"
        file = open(os.path.join(folder, temporary), "xb")  # noqa: SIM115  # the caller closes it
        with contextlib.suppress(BlockingIOError):
            if not _lock(file.fileno()) or _is_at(file.fileno(), file.name):
                return file
        file.close()  # another process locked it first, to remove it


def _remove_if_left_over(path: str, is_of_this_host: bool) -> None:
    handle = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    try:
        is_locked = _lock(handle)
        is_old = time.time() - os.fstat(handle).st_mtime > LEFT_OVER
        if (is_old or is_locked and is_of_this_host) and _is_at(handle, path):
            os.remove(path)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file; False if the file system has no locks.

    Raises:
        BlockingIOError: another process has locked it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _is_at(handle: int, path: str) -> bool:
    """Return whether `path` still refers to the open file."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _host() -> str:
    return _start_of(socket.gethostname().partition(".")[0] or "localhost", HOST_PART)


def _start_of(name: str, count: int) -> str:
    """Truncate a name to at most `count` bytes."""
    return os.fsencode(name)[:count].decode(errors="ignore")


def _sync_folder(folder: str) -> None:
    if os.name == "nt":  # Windows cannot sync a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
