"""Read files written by others: open them without ever waiting, and decode any Unicode encoding."""

from __future__ import annotations

import codecs
import difflib
import os
import stat
from typing import BinaryIO

# The longest mark first: UTF-32's little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings without a mark, by which of the first four bytes are zero when the text begins with two ASCII characters.
_ZEROS = {
    (True, True, True, False): "utf-32-be",
    (False, True, True, True): "utf-32-le",
    (True, False, True, False): "utf-16-be",
    (False, True, False, True): "utf-16-le",
}
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotAFileError(OSError):
    """Raised for a folder, named pipe, socket or device where a file is required."""


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file for reading bytes.

    Raises:
        FileNotFoundError, OSError: see `open`.
        NotAFileError: the path is a folder, a named pipe, a socket or a device. Opening never waits for a writer.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)
    except OSError:
        refuse_special(path)
        raise
    mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        refuse_special(path)
        raise NotAFileError(f"{os.fspath(path)} is not a regular file")
    return file


def refuse_special(path: str | os.PathLike) -> None:
    """Raise NotAFileError if the path leads to a folder, a named pipe, a socket or a device."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    for is_kind, name in _KINDS:
        if is_kind(mode):
            raise NotAFileError(f"{os.fspath(path)} is {name}; a regular file is required")


def read_text(path: str | os.PathLike) -> str:
    """Read a text file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        FileNotFoundError, OSError, NotAFileError: see `open_regular`.
        ValueError: the file has another encoding.
    """
    with open_regular(path) as file:
        return decode_text(file.read(), path)


def decode_text(data: bytes, path: str | os.PathLike) -> str:
    """Decode the bytes of a text file; `path` is named in errors.

    Raises:
        ValueError: the bytes are in none of the encodings of `read_text`.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None:
        encoding = _ZEROS.get(tuple(byte == 0 for byte in data[:4]), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        shown = data[max(error.start - 12, 0) : error.start + 12].decode("ascii", "replace").replace("�", "?")
        raise ValueError(
            f"{os.fspath(path)} is not {encoding.upper()} text: byte 0x{data[error.start]:02x} at position "
            f"{error.start:,}, near {shown!r}. Save the file as UTF-8."
        ) from None


def nearest_path(path: str | os.PathLike) -> str | None:
    """Find the existing path most like a missing one: its folder's entry with the nearest name.

    If the folder is missing too, the nearest folder is returned. None if nothing resembles the name.
    """
    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    folder, name = os.path.split(path)
    while not os.path.isdir(folder):
        if not os.path.basename(folder):
            return None
        folder, name = os.path.split(folder)
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    close = nearest_name(name, names)
    return None if close is None else os.path.join(folder, close)


def nearest_name(name: str, names: list[str]) -> str | None:
    """Return the name most like `name`, ignoring case; None if none is similar."""
    by_case: dict[str, str] = {}
    for each in names:
        by_case.setdefault(each.casefold(), each)
    close = difflib.get_close_matches(name.casefold(), by_case, n=1, cutoff=0.6)
    return by_case[close[0]] if close else None


def did_you_mean(path: str | os.PathLike) -> str:
    """Return " Nearest: PATH." for a missing path, or "" if nothing resembles it."""
    close = nearest_path(path)
    return f" Nearest: {close}." if close else ""


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
