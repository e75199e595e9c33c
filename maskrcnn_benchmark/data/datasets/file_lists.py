"""List the images or annotation files below a folder."""

from __future__ import annotations

import os

from maskrcnn_benchmark.utils.text_file import did_you_mean

# File name endings by which images are recognised when a folder is searched.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm")


def list_images(folder: str) -> list[str]:
    """Return the paths of all image files below a folder, in alphabetical order, without hidden ones."""
    found, folders, known = [], [folder], set()
    while folders:
        folder = folders.pop()
        identity = os.stat(folder).st_dev, os.stat(folder).st_ino
        if identity in known:  # a link to a folder above
            continue
        known.add(identity)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if os.path.splitext(entry.name)[1].lower() in IMAGE_ENDINGS:
                    found.append(entry.path)
                elif entry.is_dir():
                    folders.append(entry.path)
    return sorted(found)


def image_names(folder: str) -> list[str]:
    """Return the paths of `list_images`, relative to the folder."""
    start = len(os.path.join(folder, ""))
    return [path[start:] for path in list_images(folder)]


def list_files(folder: str, ending: str) -> list[str]:
    """Return the paths of all files below a folder with this ending, relative to it, in alphabetical order.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"annotation folder {folder} does not exist.{did_you_mean(folder)}")
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(place, folder)
        found += [os.path.normpath(os.path.join(inside, name)) for name in names if name.lower().endswith(ending)]
    return sorted(found)
