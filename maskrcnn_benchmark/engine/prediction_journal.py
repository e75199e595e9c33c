"""Store the results of `predict_many` so that an interrupted run can resume.

Each process appends one JSON line per image to its part, OUTPUT/parts/RANK.jsonl. The first line of a part has the
settings of the run. At the end the parts are joined into OUTPUT/predictions.jsonl, in the order of the inputs.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Iterable, Iterator

from maskrcnn_benchmark.utils.atomic_write import atomic_write

PARTS = "parts"
JOINED = "predictions.jsonl"


class Journal:
    """Writer of one process's part, a context manager. Each `add` flushes its line.

    Args:
        folder: OUTPUT.
        rank: rank of the process.
        settings: everything that affects the results, in plain types.
    """

    def __init__(self, folder: str, rank: int, settings: dict):
        self.path = os.path.join(folder, PARTS, f"{rank}.jsonl")
        self.settings = settings

    def __enter__(self) -> Journal:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        _cut_torn_line(self.path)
        self.file = open(self.path, "a", encoding="utf-8")
        if self.file.tell() == 0:
            self._write({"settings": self.settings})
        return self

    def __exit__(self, *error) -> None:
        self.file.close()

    def add(self, line: dict) -> None:
        """Append the result of an image, a dict with "file_name"."""
        self._write(line)

    def _write(self, line: dict) -> None:
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        self.file.flush()


def parts_of(folder: str) -> list[str]:
    """List the joined file, if it exists, and the parts."""
    joined = os.path.join(folder, JOINED)
    parts = sorted(glob.glob(os.path.join(glob.escape(folder), PARTS, "*.jsonl")))
    return ([joined] if os.path.exists(joined) else []) + parts


def read_done(folder: str, settings: dict) -> set[str]:
    """Return the names of the images that earlier runs finished, without the unreadable ones.

    Raises:
        ValueError: the settings of an earlier run differ.
    """
    done = set()
    for path, _, line in _lines(parts_of(folder)):
        if "settings" in line:
            differing = [key for key in settings if line["settings"].get(key) != settings[key]]
            if differing:
                shown = ", ".join(f"{key} {line['settings'].get(key)!r}" for key in differing)
                raise ValueError(
                    f"{path} was written with {shown}, but this run has "
                    f"{', '.join(repr(settings[key]) for key in differing)}: the results would be mixed. Use the same "
                    "options, another --output, or --overwrite."
                )
        elif "error" not in line:
            done.add(line["file_name"])
    return done


def remove_parts(folder: str) -> None:
    """Remove the joined file and the parts of earlier runs."""
    for path in parts_of(folder):
        os.remove(path)
    with contextlib.suppress(OSError):  # the folder may have files of other programs
        os.rmdir(os.path.join(folder, PARTS))


def join_parts(folder: str, names: Iterable[str], settings: dict) -> None:
    """Join the parts into one file, in the order of `names`.

    The frames of a video, VIDEO/NUMBER.jpg, are in the order of their numbers. Images of earlier runs that are not in
    `names` come last.
    """
    places: dict[str, tuple[str, int]] = {}
    failed: dict[str, tuple[str, int]] = {}
    for path, offset, line in _lines(parts_of(folder)):
        if "settings" not in line:
            (failed if "error" in line else places)[line["file_name"]] = path, offset
    places = {**failed, **places}
    of_video: dict[str, list[str]] = {}
    for name in places:
        of_video.setdefault(name.rpartition("/")[0], []).append(name)
    with contextlib.ExitStack() as stack:
        files = {path: stack.enter_context(open(path, "rb")) for path in {path for path, _ in places.values()}}
        output = stack.enter_context(atomic_write(os.path.join(folder, JOINED)))
        output.write(json.dumps({"settings": settings}).encode() + b"\n")
        ordered = (each for name in names for each in ([name] if name in places else sorted(of_video.get(name, ()))))
        for each in dict.fromkeys([*ordered, *places]):
            path, offset = places[each]
            files[path].seek(offset)
            output.write(files[path].readline())
    for path in parts_of(folder):
        if os.path.basename(path) != JOINED:
            os.remove(path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.join(folder, PARTS))


def read_joined(folder: str) -> Iterator[dict]:
    """Yield the results in the joined file."""
    for _, _, line in _lines([os.path.join(folder, JOINED)]):
        if "settings" not in line:
            yield line


def _lines(paths: Iterable[str]) -> Iterator[tuple[str, int, dict]]:
    """Yield (path, offset in bytes, line) for every complete line."""
    for path in paths:
        offset = 0
        with open(path, "rb") as file:
            for text in file:
                if text.endswith(b"\n"):
                    yield path, offset, json.loads(text)
                offset += len(text)


def _cut_torn_line(path: str) -> None:
    """Remove the last line of a part if it is incomplete because its writer was killed."""
    if not os.path.exists(path):
        return
    with open(path, "r+b") as file:
        length = 0
        for text in file:
            length += len(text) if text.endswith(b"\n") else 0
        file.truncate(length)
