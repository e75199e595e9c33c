"""Find the images, index maps and class names of a semantic dataset.

An image and its map have the same path relative to their folders, up to the ending: images/a/1.jpg and maps/a/1.png.
Suffixes such as "_leftImg8bit" and "_gtFine_labelTrainIds" are removed before names are compared.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from maskrcnn_benchmark.data.datasets.file_lists import IMAGE_ENDINGS
from maskrcnn_benchmark.data.datasets.index_maps import MAP_ENDINGS
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.utils.text_file import did_you_mean, read_text


@dataclass(frozen=True)
class ImageWithMap:
    """An image and its map.

    Attributes:
        name: id of the image in results.
        image, map: files relative to their folders, separated by "/".
    """

    name: str
    image: str
    map: str


class FileIndex:
    """Index of the files below a folder by name, which is the relative path without suffix and ending.

    Args:
        folder: searched recursively; hidden files are skipped.
        endings: file name endings to include.
        suffix: text between name and ending, optionally including the ending; "" for none.
        kind: name of the files in errors, such as "map".

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: two files have the same name.
    """

    def __init__(self, folder: str, endings: tuple[str, ...], suffix: str, kind: str):
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"{kind} folder {folder} does not exist")
        self.folder, self.endings, self.suffix, self.kind = folder, endings, suffix, kind
        self.files: dict[str, str] = {}
        for path in _files_below(folder):
            name = self.name_of(path)
            if name is not None and self.files.setdefault(name, path) != path:
                raise ValueError(
                    f"{kind} folder {folder} has both {self.files[name]} and {path}, which have the same name. Remove "
                    "one, or give a suffix that only one of them has"
                )

    def name_of(self, path: str) -> str | None:
        """Return the name of a file, or None if its suffix or ending differs."""
        if self.suffix and path.endswith(self.suffix) and self.suffix.lower().endswith(self.endings):
            return path[: -len(self.suffix)]
        stem, ending = os.path.splitext(path)
        if ending.lower() not in self.endings or not stem.endswith(self.suffix):
            return None
        return stem[: len(stem) - len(self.suffix)]

    def find(self, text: str) -> str | None:
        """Find the name for a line of a list file, which is a name or a file with any folders before it."""
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        for k in range(len(parts)):
            tail = "/".join(parts[k:])
            name = self.name_of(tail)
            for candidate in (tail, name, os.path.splitext(tail)[0] if name is None else None):
                if candidate in self.files:
                    return candidate
        return None


def find_images_with_maps(
    images: str, maps: str, split_file: str | None, report: DatasetReport, image_suffix: str = "", map_suffix: str = ""
) -> list[ImageWithMap]:
    """Pair images and maps.

    Args:
        images, maps: folders.
        split_file: list of images, one per line: a name ("2007_000032"), or the files of image and map
            ("/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png"). None uses all images that have a
            map, in alphabetical order, and counts the others as dropped.
        report: receives the findings.
        image_suffix, map_suffix: see `FileIndex`.

    Raises:
        FileNotFoundError: a folder, the list, or files named in the list are missing; or no image has a map.
        ValueError: the list is empty, or a file name is ambiguous.
    """
    same_folder = os.path.realpath(images) == os.path.realpath(maps) and image_suffix == map_suffix
    endings = tuple(ending for ending in IMAGE_ENDINGS if not (same_folder and ending in MAP_ENDINGS))
    image_index = FileIndex(images, endings, image_suffix, "image")
    map_index = FileIndex(maps, MAP_ENDINGS, map_suffix, "map")
    if split_file is None:
        pairs = _all_pairs(image_index, map_index, report)
    else:
        pairs = _listed_pairs(split_file, image_index, map_index, report)
    return [ImageWithMap(name, image_index.files[name], map_index.files[map_name]) for name, map_name in pairs]


def _files_below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = os.path.relpath(parent, folder).replace(os.sep, "/")
        for file in sorted(files):
            if not file.startswith("."):
                yield file if relative == "." else f"{relative}/{file}"


def _all_pairs(images: FileIndex, maps: FileIndex, report: DatasetReport) -> list[tuple[str, str]]:
    both = sorted(images.files.keys() & maps.files.keys())
    if not both:
        raise FileNotFoundError(
            f"no image of {images.folder} ({_count(images)}) has a map of the same name in {maps.folder} "
            f"({_count(maps)}). {_hint(maps)}Maps must be {', '.join(MAP_ENDINGS)} with the name of their image; set "
            "IMAGE_SUFFIX and MAP_SUFFIX of the block if something is added to the names"
        )
    report.add("dropped", "images without a map", sorted(images.files.keys() - maps.files.keys()), "images")
    report.add("noted", "maps without an image", sorted(maps.files.keys() - images.files.keys()), "maps")
    return [(name, name) for name in both]


def _count(index: FileIndex) -> str:
    if not index.files:
        return f"{index.kind}s: none"
    return f"{index.kind}s: {len(index.files):,}, such as {next(iter(index.files.values()))}"


def _hint(maps: FileIndex) -> str:
    """Return a sentence about maps stored in a lossy format, or ""."""
    lossy = [path for path in _files_below(maps.folder) if path.lower().endswith((".jpg", ".jpeg", ".webp"))]
    if not lossy:
        return ""
    return f"{maps.folder} has {len(lossy):,} lossy images ({lossy[0]}): a lossy format changes class numbers. "


def _listed_pairs(split_file: str, images: FileIndex, maps: FileIndex, report: DatasetReport) -> list[tuple[str, str]]:
    lines = [line.strip() for line in _text_of(split_file, "list file").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError(f"list file {split_file} names no image")
    pairs, missing, repeated, seen = [], {images.kind: [], maps.kind: []}, [], set()
    for line in lines:
        columns = [line, line] if images.find(line) is not None else line.split()
        if len(columns) == 1:
            columns *= 2
        if len(columns) != 2:
            raise ValueError(
                f"list file {split_file}: expected a name per line, or the files of image and map, got {line!r}"
            )
        found = images.find(columns[0]), maps.find(columns[1])
        # a name in the list may include the image's suffix
        if found[0] is not None and found[1] is None and columns[0] == columns[1]:
            found = found[0], maps.find(found[0])
        for index, name in zip((images, maps), found, strict=True):
            if name is None:
                missing[index.kind].append(line)
        if None in found:
            continue
        if found[0] in seen:
            repeated.append(found[0])
            continue
        seen.add(found[0])
        pairs.append(found)
    for index in (images, maps):
        names = missing[index.kind]
        if names:
            raise FileNotFoundError(
                f"{len(names):,} of the {len(lines):,} images in {split_file} have no {index.kind} in {index.folder} "
                f"({_count(index)}): {', '.join(names[:EXAMPLES])}{', ...' if len(names) > EXAMPLES else ''}. "
                f"{_hint(index) if index is maps else ''}Is it the folder of this list?"
            )
    report.add("dropped", "repeated lines of the list", repeated, "images")
    return pairs


def _text_of(path: str, kind: str) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{kind} {path} does not exist.{did_you_mean(path)}") from None


_NUMBERED = re.compile(r"(\d+)\s*[:,;\s]\s*(\S.*)")


def read_class_names(path: str) -> tuple[list[str], list[int] | None]:
    """Read class names from a file, and the pixel value of each class if the file has them.

    Args:
        path: text file with a name per line, or with "7 road" or "7: road" in every line; or JSON: a list of names, an
            object from value to name, or a COCO file with "categories".

    Returns:
        The names, and their pixel values or None.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has no names or is not text; see `read_text`.
    """
    text = _text_of(path, "file of class names")
    names, values = _names_in_json(text, path) if path.lower().endswith(".json") else _names_in_lines(text)
    if not names:
        raise ValueError(f"file of class names {path} names no class")
    return names, values


def _names_in_lines(text: str) -> tuple[list[str], list[int] | None]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    if all(matches):
        return [match[2].strip() for match in matches], [int(match[1]) for match in matches]
    return lines, None


def _names_in_json(text: str, path: str) -> tuple[list[str], list[int] | None]:
    try:
        content = json.loads(text)
        if isinstance(content, dict) and "categories" in content:
            rows = content["categories"]
            return [str(row["name"]) for row in rows], [int(row["id"]) for row in rows]
        if isinstance(content, dict):
            return [str(name) for name in content.values()], [int(value) for value in content]
        return [str(name) for name in content], None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"file of class names {path}: expected a list of names, an object from value to name, or COCO's "
            f"'categories' with 'id' and 'name'; {type(error).__name__}: {error}"
        ) from error
