"""Read a YOLO data.yaml, or darknet's obj.data, and find the images of a split and their label files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import yaml

from maskrcnn_benchmark.data.datasets.coco_values import whole_number
from maskrcnn_benchmark.data.datasets.file_lists import list_images
from maskrcnn_benchmark.data.datasets.report import EXAMPLES
from maskrcnn_benchmark.utils.text_file import did_you_mean, read_text

# Files that describe a dataset, in the order in which they are looked for in a folder.
DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml", "data_config.yaml", "obj.data", "classes.txt")
SPLITS = ("train", "val", "valid", "test")
# Two names of one split.
SAME = {"val": "valid", "valid": "val"}
# Name of an image folder -> name of the label folder beside it.
LABEL_FOLDERS = {"images": "labels", "JPEGImages": "labels"}
# Text files in a label folder that are not label files.
NO_LABELS = ("classes.txt", "notes.txt", "README.txt", "readme.txt", "predefined_classes.txt")


@dataclass
class YoloSplit:
    """A split of a YOLO dataset.

    Attributes:
        data_file: the file that describes it.
        root: the dataset's folder.
        images: paths of its images.
        labels: path of the label file of each image, or None where there is none.
        class_names: K names; class 0 is the first.
        keypoints: number of keypoints per object, 0 if there are none.
        dims: numbers per keypoint, 2 (x, y) or 3 (x, y, visibility).
        keypoint_names: names of the keypoints, or None.
        moved: value of `path` in the yaml if that folder does not exist here, else "".
        unused: label files that belong to none of the images, if the split is made of folders, not of a list.
        name: key of the split in the file.
        missing: lines of image lists whose file does not exist.
    """

    data_file: str
    root: str
    images: list[str]
    labels: list[str | None]
    class_names: list[str]
    keypoints: int = 0
    dims: int = 3
    keypoint_names: list[str] | None = None
    moved: str = ""
    unused: list[str] = field(default_factory=list)
    name: str = ""
    missing: list[str] = field(default_factory=list)


def read_split(data_file: str | os.PathLike, split: str) -> YoloSplit:
    """Find the images and label files of a split.

    Paths in the file may be relative to `path` in it, to its own folder, or to the working directory, and may lead out
    of the folder although they should not ("../train/images", as Roboflow writes).

    Args:
        data_file: data.yaml, darknet's obj.data, classes.txt with a name per line, or a folder with one of these. If it
            names no split, images are looked for in images/SPLIT, SPLIT/images and images beside it.
        split: "train", "val" (or "valid"), "test", or another key of the file.

    Raises:
        FileNotFoundError: the file, the split's folder or list, or all images of the list are missing.
        ValueError: the file is not such a file, or has no such split.
    """
    data_file = os.fspath(data_file)
    if os.path.isdir(data_file):
        data_file = _in_folder(data_file)
    data = _load(data_file)
    names = _class_names(data, data_file)
    folder = os.path.dirname(os.path.abspath(data_file))
    if not any(data.get(key) for key in (*SPLITS, split)):
        data[split] = _default_place(folder, split)
    keys = [key for key in (split, SAME.get(split)) if data.get(key)]
    if not keys:
        there = [str(key) for key, value in data.items() if value and key in SPLITS]
        raise ValueError(f"{data_file} has no split {split!r} (SPLIT); it has {', '.join(there) or 'none'}")
    entries = data[keys[0]]
    entries = entries if isinstance(entries, list) else [entries]
    roots = _roots(data.get("path"), folder)
    root, moved = roots[0], ""
    images: list[str] = []
    missing: list[str] = []
    for entry in entries:
        path = next(filter(None, (_existing(str(entry), each) for each in roots)), None)
        if path is None:
            path = _of_another_machine(str(entry).replace("\\", "/"), roots)
        if path is None:
            tried = os.path.join(roots[0], str(entry))
            raise FileNotFoundError(
                f"{data_file}: {keys[0]}: {entry} does not exist in {' nor '.join(roots)}.{did_you_mean(tried)}"
            )
        if isinstance(path, list):
            found = [image for each in path for image in _images_of(each, roots)]
        else:
            found = _images_of(path, roots)
        images += filter(os.path.isabs, found)
        missing += (line for line in found if not os.path.isabs(line))
    if data.get("path") and not os.path.isdir(root):
        root, moved = folder, str(data["path"])
    images = list(dict.fromkeys(images))
    if not images and missing:
        raise FileNotFoundError(
            f"none of the {len(missing):,} images that {', '.join(map(str, entries))} of {data_file} lists exists "
            f"below {' nor '.join(roots)}: {', '.join(missing[:EXAMPLES])}{', ...' if len(missing) > EXAMPLES else ''}"
        )
    if not images:
        raise FileNotFoundError(f"{data_file}: {keys[0]}: {', '.join(map(str, entries))} has no image")
    labels, unused = _find_labels(images)
    if any(str(entry).lower().endswith(".txt") for entry in entries):
        unused = []  # of other splits, which share the folder
    count, dims = _keypoint_shape(data, data_file)
    keypoint_names = _keypoint_names(data, count)
    return YoloSplit(
        data_file, root, images, labels, names, count, dims, keypoint_names, moved, unused, keys[0], missing
    )


def _in_folder(folder: str) -> str:
    for name in DATA_FILES:
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    raise FileNotFoundError(f"folder {folder} (DATA) has none of {', '.join(DATA_FILES)}")


def _default_place(folder: str, split: str) -> str | None:
    """Return the default image folder of a split, for data files that name none; None if there is no such folder."""
    names = filter(None, (split, SAME.get(split)))
    places = [place for name in names for place in (f"images/{name}", f"{name}/images")]
    return next((place for place in (*places, "images") if os.path.isdir(os.path.join(folder, place))), None)


def _load(data_file: str) -> dict:
    try:
        text = read_text(data_file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{data_file} (DATA) does not exist.{did_you_mean(data_file)}") from None
    if data_file.endswith(".txt"):
        return {"names": [line.strip() for line in text.splitlines() if line.strip()]}
    if data_file.endswith(".data"):
        pairs = [line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#")]
        data = {key.strip(): value.strip() for key, _, value in pairs}
        names = data.get("names")
        if names is not None:
            folder = os.path.dirname(os.path.abspath(data_file))
            path = _existing(names, folder) or _existing_tail(names, [folder])
            if not isinstance(path, str):
                raise FileNotFoundError(f"{data_file}: names: {names} does not exist in {folder}")
            data["names"] = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        return data
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{data_file} (DATA) is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{data_file} (DATA) holds {data!r:.80}; expected names, train and val")
    return data


def _class_names(data: dict, data_file: str) -> list[str]:
    names, count = data.get("names"), whole_number(data.get("nc", data.get("classes")))
    if names is None and count:
        return [f"class_{k}" for k in range(count)]
    if isinstance(names, dict):
        numbers = {whole_number(key): name for key, name in names.items()}
        if sorted(numbers, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"{data_file}: names has the keys {', '.join(map(str, names))}; expected 0 to K - 1")
        names = [numbers[k] for k in range(len(numbers))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{data_file}: names is {names!r:.80}; expected a list of class names, or {{0: name, ...}}")
    if count is not None and count != len(names):
        raise ValueError(f"{data_file}: nc is {count}, but names has {len(names)}: {', '.join(map(str, names))}")
    return [str(name) for name in names]


def _keypoint_shape(data: dict, data_file: str) -> tuple[int, int]:
    shape = data.get("kpt_shape")
    if shape is None:
        return 0, 3
    if not isinstance(shape, list) or len(shape) != 2 or not isinstance(shape[0], int) or shape[1] not in (2, 3):
        raise ValueError(f"{data_file}: kpt_shape is {shape!r}; expected [keypoints, 2 or 3]")
    return shape[0], shape[1]


def _keypoint_names(data: dict, count: int) -> list[str] | None:
    names = data.get("kpt_names")
    if isinstance(names, dict) and names:
        names = next(iter(names.values()))  # by class; classes of one dataset share their keypoints
    return [str(name) for name in names] if isinstance(names, list) and len(names) == count else None


def _roots(path, folder: str) -> list[str]:
    """Return the folders that a split may be relative to, the likeliest first."""
    roots = []
    if path:
        path = os.path.expanduser(str(path).replace("\\", "/"))
        places = [os.path.join(folder, path), os.path.abspath(path), os.path.join(os.path.dirname(folder), path)]
        roots = [os.path.normpath(place) for place in places if os.path.isdir(place)] or [os.path.normpath(places[0])]
    return list(dict.fromkeys([*roots, folder]))


def _existing(entry: str, root: str) -> str | list[str] | None:
    """Return the path of a split below a root, the paths that a pattern matches, or None."""
    entry = os.path.expanduser(entry.replace("\\", "/"))
    inside = entry
    while inside.startswith("../"):
        inside = inside[3:]
    for each in (entry, inside):
        path = os.path.normpath(os.path.join(root, each))
        if os.path.exists(path):
            return path
        if glob.has_magic(each):
            matches = sorted(glob.glob(path, recursive=True))
            if matches:
                return matches
    return None


def _of_another_machine(entry: str, roots: list[str]) -> str | None:
    """Resolve a path of another machine, or one with "../", to a list file or folder here; None if there is none."""
    if entry.endswith(".txt"):
        return _existing_tail(entry, roots)
    if not entry.startswith(("../", "/")) and entry[1:2] != ":":
        return None
    parts = [part for part in entry.split("/") if part not in ("", ".", "..")]
    tails = (os.path.join(root, *parts[start:]) for start in range(len(parts) - 1) for root in roots)
    return next(filter(os.path.isdir, tails), None)


def _existing_tail(line: str, roots: Iterable[str]) -> str | None:
    """Return the file below a root that matches the longest tail of a path of another machine; None if none does."""
    parts = [part for part in line.split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        for root in roots:
            path = os.path.join(root, *parts[start:])
            if os.path.isfile(path):
                return path
    return None


def _images_of(path: str, roots: list[str]) -> list[str]:
    """Return the absolute paths of a split's images. Lines of a list without a file are returned as relative paths."""
    if os.path.isdir(path):
        return list_images(path)
    if not path.lower().endswith(".txt"):
        return [path]
    lines = [line.strip().replace("\\", "/") for line in read_text(path).splitlines()]
    places = [os.path.dirname(path), *roots]
    return [_listed(line, places) for line in lines if line]


def _listed(line: str, places: list[str]) -> str:
    """Return the absolute path of an image in a list; if it does not exist, the line without leading slashes."""
    for place in places:
        path = os.path.normpath(os.path.join(place, line))
        if os.path.isfile(path):
            return os.path.abspath(path)
    return _existing_tail(line, places) or line.lstrip("/")


def _find_labels(images: list[str]) -> tuple[list[str | None], list[str]]:
    """Return the label file of each image, and the files of the same folders that belong to none of them."""
    folders: dict[str, dict[str, str]] = {}
    of_images: dict[str, str] = {}
    labels: list[str | None] = []
    for image in images:
        folder, name = os.path.split(image)
        if folder not in of_images:
            of_images[folder] = next(filter(os.path.isdir, _label_folders(folder)), folder)
            folders.setdefault(of_images[folder], _label_files(of_images[folder]))
        place = of_images[folder]
        found = folders[place].get(os.path.splitext(name)[0])
        labels.append(None if found is None else os.path.join(place, found))
    used = set(filter(None, labels))
    there = (os.path.join(folder, name) for folder, names in folders.items() for name in names.values())
    return labels, sorted(path for path in there if path not in used and os.path.basename(path) not in NO_LABELS)


def _label_folders(folder: str) -> Iterator[str]:
    """Yield candidate label folders of an image folder: one images/ in its path becomes labels/, the last one first."""
    parts = folder.split(os.sep)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i] in LABEL_FOLDERS:
            yield os.sep.join([*parts[:i], LABEL_FOLDERS[parts[i]], *parts[i + 1 :]])


def _label_files(folder: str) -> dict[str, str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return {name[:-4]: name for name in names if name.lower().endswith(".txt")}
