"""Detect whether the files that a dataset is read from have changed.

A folder of annotations is compared by the list of its files, and by the status and SHA-256 of each. The folder's own
modification time does not change when a file in it is edited.

Shapes: F files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.data.datasets.string_table import StringTable

# Looking files up mostly waits for the disk. Eight threads keep a network disk busy.
LOOKERS = 8
# Files that a thread looks up at a time.
TURN = 512

# Names of a state's arrays in a table. No array of a dataset's own begins with "sources.".
FILES, STATUS, DIGESTS = "sources.files", "sources.status", "sources.digests"

_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Sources:
    """Files and arguments that a dataset is read from.

    Attributes:
        place: annotation file, beside which the table is kept, or folder of annotations, in which it is kept.
        arguments: arguments of the dataset's constructor, JSON-serializable and with absolute paths. They are kept in
            the table, so that it can be opened without a config.
        find: returns the files whose content is compared, and a dict of other JSON-serializable values to compare, such
            as the names of the images in a folder. Its keys are plural nouns for messages, as in "the names of its
            images have changed".
    """

    place: str
    arguments: dict
    find: Callable[[], tuple[Sequence[str], dict[str, object]]]


def absolute(path: str | os.PathLike | None) -> str | None:
    return None if path is None else os.path.abspath(path)


class SourceState:
    """State of a dataset's sources at one time.

    Attributes:
        files: F paths.
        status: (F, 4) int64 size, modification and change time in ns, and inode. A program that writes a file may set
            its modification time, but not its change time.
        others: SHA-256 of the list of files and of each other value of `Sources.find`, by its key.

    Raises:
        OSError: a file is missing.
    """

    def __init__(self, sources: Sources):
        files, others = sources.find()
        self.files = [os.path.abspath(path) for path in files]
        self.status = status_of(self.files)
        others = {"the names of its annotation files": self.files, **others}
        self.others = {name: _digest_of(value) for name, value in others.items()}

    @property
    def size(self) -> int:
        """Total size of all files in bytes."""
        return int(self.status[:, 0].sum())

    def is_as_before(self) -> bool:
        """Look the files up again, and return whether they have the same status."""
        try:
            return bool((status_of(self.files) == self.status).all())
        except OSError:
            return False

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Read all files, and return the state as arrays for a table: names, status and SHA-256 of the files."""
        names = {f"{FILES}.{name}": array for name, array in StringTable(self.files).to_arrays().items()}
        return {**names, STATUS: self.status, DIGESTS: _digests_of(self.files)}

    def difference(self, others: dict, arrays: Mapping[str, np.ndarray]) -> str | None:
        """Compare with an earlier state, and return what differs, for a message; None if nothing does.

        Files are read only if their status differs although their size does not.

        Args:
            others: `others` of the earlier state.
            arrays: result of its `to_arrays`.
        """
        status, digests = arrays[STATUS], arrays[DIGESTS]
        for name in (*self.others, *others):
            if self.others.get(name) != others.get(name):
                return f"{name} have changed"
        for i in np.flatnonzero(self.status[:, 0] != status[:, 0]):
            return f"{self.files[i]} has changed since"
        touched = np.flatnonzero((self.status != status).any(axis=1))
        now = _digests_of([self.files[i] for i in touched])
        for i in touched[(now != digests[touched]).any(axis=1)]:
            return f"{self.files[i]} has changed since"
        return None


def changed_files(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """Read all files of an earlier state, and yield (path, what is wrong) of those that have another content now.

    Args:
        arrays: result of `to_arrays`.
    """
    paths = StringTable.from_arrays({name: arrays[f"{FILES}.{name}"] for name in ("bytes", "ends")})
    for path, digest in zip(paths, arrays[DIGESTS], strict=True):
        try:
            if _digest(path) != digest.tobytes():
                yield path, "has another content than when it was read"
        except OSError as error:
            yield path, f"{type(error).__name__}: {error}"


def _digests_of(paths: Sequence[str]) -> np.ndarray:
    """Return the SHA-256 of files: (F, 32) uint8."""
    return np.frombuffer(b"".join(_in_turns(_digest, paths)), dtype=np.uint8).reshape(-1, 32)


def status_of(paths: Sequence[str]) -> np.ndarray:
    """Return size, modification and change time in ns, and inode of files: (F, 4) int64.

    Raises:
        OSError: a file is missing.
    """
    rows = list(_in_turns(_status, paths))
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def _status(path: str) -> tuple[int, int, int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & _INT64


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.digest()


def _digest_of(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _in_turns(function: Callable, paths: Sequence[str]) -> Iterable:
    """Call a function with each path, in threads if they are many, and yield the results in order."""
    if len(paths) <= TURN:
        yield from map(function, paths)
        return
    parts = [paths[first : first + TURN] for first in range(0, len(paths), TURN)]
    with ThreadPoolExecutor(LOOKERS) as lookers:
        for results in lookers.map(lambda part: list(map(function, part)), parts):
            yield from results
