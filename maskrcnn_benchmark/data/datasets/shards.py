"""Read images from tar files, such as WebDataset's shards, in place, by an index of their files.

A folder of a million small files costs a shared disk a million look-ups; a shard is one file of a gigabyte. The order
of the images does not depend on the shards: annotations name images, and samplers order them.

Shapes: I images.
"""

from __future__ import annotations

import os
import tarfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.utils.braces import expand_braces
from maskrcnn_benchmark.utils.text_file import open_regular

# File name endings of compressed archives, whose files cannot be read in place.
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

BLOCK = 512  # bytes per block of a tar file
# Maximum number of files that a thread keeps open.
OPEN = 64


def are_shards(root: str) -> bool:
    """Return whether an image folder is given as tar files, such as "shards/{000000..000127}.tar"."""
    return root.endswith((".tar", ".tar}", *COMPRESSED))


def shard_paths(root: str) -> list[str]:
    """Return the tar files of an image folder for which `are_shards` is true.

    Raises:
        ValueError: they are compressed, or braces are wrong.
        FileNotFoundError: some do not exist; the first one is named.
    """
    paths = expand_braces(root)
    compressed = [path for path in paths if path.endswith(COMPRESSED)]
    if compressed:
        raise ValueError(f"shard {compressed[0]} is compressed; images are read in place from .tar files only")
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(f"{len(missing):,} of {len(paths):,} shards of {root} do not exist: {missing[0]}")
    return paths


@dataclass(frozen=True, slots=True)
class ShardMember:
    """File in a tar file.

    Attributes:
        shard: path of the tar file.
        name: name of the file in it, for messages.
        offset, size: start and length of the content, in bytes.
    """

    shard: str
    name: str
    offset: int
    size: int

    def read(self, first: int = 0, count: int | None = None) -> bytes:
        """Read the content, or `count` bytes of it from `first` on.

        Raises:
            OSError: the tar file is missing, or ends before the content does.
        """
        first, last = min(first, self.size), self.size
        last = last if count is None else min(first + count, last)
        data = _read_at(self.shard, self.offset + first, last - first)
        if len(data) < last - first:
            raise OSError(f"shard {self.shard} ends early: it lacks a part of {self.name}")
        return data

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"


class ShardIndex:
    """Index of the files in tar files.

    Args:
        paths: the tar files.

    Attributes:
        places: (N, 3) int64 number of the tar file, byte offset and size in bytes of N files.

    Raises:
        OSError: a tar file cannot be read, is not one, or ends early.
    """

    def __init__(self, paths: Sequence[str]):
        self.paths = list(paths)
        self.names: list[str] = []
        places = []
        for number, path in enumerate(self.paths):
            for name, offset, size in _members(path):
                self.names.append(name)
                places.append((number, offset, size))
        self.places = np.array(places, dtype=np.int64).reshape(-1, 3)
        self._by_name = _unique(self.names)
        self._by_base = _unique(list(map(os.path.basename, self.names)))

    def find(self, name: str) -> int | None:
        """Return the index of the file with this name, else of the only one with its base name, else None."""
        name = name.replace("\\", "/")
        found = self._by_name.get(name, self._by_name.get(os.path.normpath(name)))
        return self._by_base.get(os.path.basename(name)) if found is None else found

    def member(self, index: int) -> ShardMember:
        number, offset, size = self.places[index].tolist()
        return ShardMember(self.paths[number], self.names[index], offset, size)


def _unique(names: list[str]) -> dict[str, int]:
    """Return the index of each name that occurs once."""
    counts = Counter(names)
    return {name: i for i, name in enumerate(names) if counts[name] == 1}


def _members(path: str) -> Iterable[tuple[str, int, int]]:
    """Yield name, offset and size of the files in a tar file."""
    with open_regular(path) as file:
        length = os.fstat(file.fileno()).st_size
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for entry in archive:
                    if entry.isreg() and not entry.issparse():
                        if entry.offset_data + entry.size > length:
                            raise OSError(f"shard {path} ends early: it lacks a part of {entry.name}")
                        yield os.path.normpath(entry.name), entry.offset_data, entry.size
                    archive.members = []  # tarfile would keep all of them in memory
                file.seek(archive.offset)
                if file.read(BLOCK) != bytes(BLOCK):  # tarfile takes a broken header for the end
                    where = f"after {archive.offset:,} of {length:,} bytes"
                    raise OSError(f"shard {path} is broken or incomplete: no header or end of the archive {where}")
        except tarfile.TarError as error:
            raise OSError(f"shard {path} is no tar file, or a broken one: {error}") from error


_local = threading.local()


def _read_at(path: str, offset: int, count: int) -> bytes:
    """Read bytes of a file that this thread keeps open.

    `pread` takes the position as an argument, so that forked processes can share open files.
    """
    if not hasattr(os, "pread"):  # Windows
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(count)
    handles = _local.__dict__.setdefault("handles", OrderedDict())
    if path in handles:
        handles.move_to_end(path)
    else:
        if len(handles) >= OPEN:
            os.close(handles.popitem(last=False)[1])
        handles[path] = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    parts = []
    while count > 0 and (data := os.pread(handles[path], count, offset)):  # at most 2 GB a call
        parts.append(data)
        offset, count = offset + len(data), count - len(data)
    return b"".join(parts)
