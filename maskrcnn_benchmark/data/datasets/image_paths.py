"""Find the image files that an annotation file names, whatever the exporter did to the names.

Exporters write backslashes, absolute paths of another machine, folders that were not copied, percent-encoded text, a
different Unicode form or letter case. Such a name is resolved if exactly one file matches it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from maskrcnn_benchmark.utils.text_file import nearest_name

# Maximum number of folders, below and beside the image folder, searched for the hint of an error message.
SEARCHED_FOLDERS = 200

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^/]*", re.IGNORECASE)
# Names of folders that hold one split.
_SPLIT = re.compile(r"(train|training|trainval|val|valid|validation|minival|test|testing|dev)[-_]?\d*", re.IGNORECASE)
_DRIVE = re.compile(r"^[a-zA-Z]:")


@dataclass
class FoundImages:
    """Result of `find_images`. All lists but `file_names` hold indices into it.

    Attributes:
        file_names: names relative to the image folder, one per given name; missing ones are unchanged.
        missing: names that match no file, and ambiguous ones.
        ambiguous: names that would share one file with another image.
        respelled: names found in another spelling: slashes, percent-encoding, Unicode form, letter case.
        moved: names found without the folders, the drive or the address before them.
        elsewhere: the names in `moved` that probably mean another folder: a removed folder names a split that the path
            of the image folder does not, or the last removed folder exists beside the image folder.
    """

    file_names: list[str]
    missing: list[int]
    ambiguous: list[int]
    respelled: list[int]
    moved: list[int]
    elsewhere: list[int]


def find_images(root: str, file_names: list[str], missing: list[int]) -> FoundImages:
    """Find the files of names that do not exist as written.

    Args:
        root: image folder.
        file_names: names of all images, relative to root.
        missing: indices of the names that do not exist.
    """
    found = FoundImages(list(file_names), [], [], [], [], [])
    folders = _Folders(root)
    fits: dict[int, tuple[str, list[str] | None]] = {}
    for i in missing:
        fit = next(_fits(file_names[i], folders), None)
        if fit is None:
            found.missing.append(i)
        else:
            fits[i] = fit
    # A file that two names match cannot be assigned to either.
    taken = Counter(name for name, _ in fits.values())
    written = Counter(file_names)
    lost = set(missing)
    named = {os.path.normpath(name) for i, name in enumerate(file_names) if i not in lost}
    for i, (name, removed) in fits.items():
        if written[file_names[i]] < taken[name] or name in named:
            found.ambiguous.append(i)
            continue
        found.file_names[i] = name
        if removed is None:
            found.respelled.append(i)
            continue
        found.moved.append(i)
        if _is_elsewhere(removed, os.path.abspath(root)):
            found.elsewhere.append(i)
    found.missing = sorted(found.missing + found.ambiguous)
    return found


def _is_elsewhere(removed: list[str], root: str) -> bool:
    """Return whether removed folders probably mean another folder than the image folder, see FoundImages."""
    if not removed or _plain(removed[-1]) == _plain(os.path.basename(root)):
        return False
    own = set(map(_plain, root.split(os.sep)))
    if any(_SPLIT.fullmatch(folder) and _plain(folder) not in own for folder in removed):
        return True
    beside = os.path.join(os.path.dirname(root), removed[-1])
    return os.path.isdir(beside) and not os.path.samefile(beside, root)


def hint_for_missing(root: str, file_name: str) -> str:
    """Suggest where a missing image is: in a folder below or beside the image folder, or under a similar name."""
    parts = _parts(_spellings(file_name)[-1])
    if not parts:
        return ""
    places = []
    for folder in _folders_around(root):
        for start in range(len(parts)):
            if os.path.isfile(os.path.join(folder, *parts[start:])):
                places.append(folder)
                break
    if places:
        return f" {parts[-1]} is in {places[0]}; IMAGES of the block names the folder."
    folder = os.path.join(root, *parts[:-1])
    folder = folder if os.path.isdir(folder) else root
    close = nearest_name(parts[-1], os.listdir(folder))
    return f" Nearest to {parts[-1]} in {folder}: {close}." if close else ""


def _fits(name: str, folders: _Folders) -> Iterator[tuple[str, list[str] | None]]:
    """Yield (path below the root, folders removed before it, or None if the name is only spelled differently)."""
    for spelling in _spellings(name):
        parts = _parts(spelling)
        leads_out = _ADDRESS.match(spelling) or _DRIVE.match(spelling) or spelling.startswith(("/", "\\"))
        leads_out = leads_out or ".." in re.split(r"[/\\]", spelling)
        for start in range(len(parts)):
            path = folders.find(parts[start:])
            if path is not None:
                yield path, None if start == 0 and not leads_out else parts[:start]


def _spellings(name: str) -> list[str]:
    """Return possible readings of a name: as it is, the query values of an address (?d=...), percent-decoded."""
    spellings = [name]
    if _ADDRESS.match(name) or "?" in name:
        address, _, query = name.partition("?")
        spellings.append(address)
        spellings += [value for part in query.split("&") for _, sign, value in [part.partition("=")] if sign and value]
    return list(dict.fromkeys([*spellings, *(unquote(each) for each in spellings)]))


def _parts(spelling: str) -> list[str]:
    """Split a POSIX or Windows path into folders and file, without address, drive, "." and ".."."""
    path = _DRIVE.sub("", _ADDRESS.sub("", spelling))
    return [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..")]


def _plain(name: str) -> str:
    """Normalise a name for comparison: composed Unicode, lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class _Folders:
    """Cache of folder listings below a root."""

    def __init__(self, root: str):
        self.root = root
        self._entries: dict[str, dict[str, list[str]]] = {}

    def find(self, parts: list[str]) -> str | None:
        """Return the path below the root that matches these parts up to Unicode form and case; None unless unique."""
        path = ""
        for part in parts:
            entries = self._list(path).get(_plain(part), [])
            if len(entries) != 1:
                entries = [entry for entry in entries if entry == part]
            if not entries:
                return None
            path = os.path.join(path, entries[0])
        return path if os.path.isfile(os.path.join(self.root, path)) else None

    def _list(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._entries:
            entries: dict[str, list[str]] = {}
            try:
                for name in os.listdir(os.path.join(self.root, folder)):
                    entries.setdefault(_plain(name), []).append(name)
            except OSError:
                pass
            self._entries[folder] = entries
        return self._entries[folder]


def _folders_around(root: str) -> Iterator[str]:
    """Yield folders below the root, then its parent, then the folders beside it."""
    below = [folder for folder, _, _ in _limited_walk(root)][1:]
    yield from below
    parent = os.path.dirname(os.path.abspath(root))
    try:
        beside = sorted(entry.path for entry in os.scandir(parent) if entry.is_dir())
    except OSError:
        return
    yield parent
    yield from (folder for folder in beside[:SEARCHED_FOLDERS] if folder != os.path.abspath(root))


def _limited_walk(root: str) -> Iterator:
    for count, entry in enumerate(os.walk(root)):
        if count == SEARCHED_FOLDERS:
            return
        entry[1].sort()
        yield entry
