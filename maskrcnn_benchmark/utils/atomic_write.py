"""Write files completely or not at all."""

from __future__ import annotations

import contextlib
import glob
import json
import os


def _sync_folder(folder: str) -> None:
    if os.name == "nt":  # Windows cannot sync a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike):
    """Open a temporary binary file beside `path`, and move it to `path` when the block ends without an error.

    A reader sees the old file or the new one, never a part, whenever the process or the machine stops: the data are on
    the disk before the name is. After an error the old file is unchanged, and the temporary one is removed. Missing
    folders are created.
    """
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    for left_by_a_killed_run in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.*.tmp")):
        os.remove(left_by_a_killed_run)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise
    _sync_folder(folder)


def write_json(path: str | os.PathLike, content, indent: int | None = None) -> None:
    """Write content as JSON, atomically.

    Raises:
        ValueError: a number in it is not finite, which JSON cannot represent.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(content, indent=indent, allow_nan=False).encode())
