"""Find the images behind command-line inputs: files, folders, patterns, lists and videos."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from maskrcnn_benchmark.utils.text_file import did_you_mean, read_text

VIDEOS = frozenset(".mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg .wmv".split())
LISTS = frozenset((".txt", ".lst"))
STDIN = "-"


@dataclass(frozen=True)
class ImageSource:
    """An image file or a video file.

    Attributes:
        path: path of the file.
        name: name in the outputs: the path relative to the common folder of all inputs, with "/".
        is_video: whether it is a video, whose frames are the images.
    """

    path: str
    name: str
    is_video: bool


def find_sources(inputs: Sequence[str], stdin=None) -> tuple[list[ImageSource], str]:
    """List the image and video files behind the inputs, each once, in the given order.

    Args:
        inputs: any of
            - files
            - folders, searched recursively for images
            - patterns with *, ? or [...]
            - text files with one path per line, relative to the folder of the text file
            - "-": such a list from stdin.
        stdin: file to read for "-"; None is sys.stdin.

    Returns:
        The sources, and the folder to which their names are relative.

    Raises:
        ValueError: an input matches no file.
    """
    paths: dict[str, None] = {}
    for given in inputs:
        found = _paths_of(given, stdin)
        if not found:
            raise ValueError(
                f"{given}: no images found; supported are files that PIL reads, and {' '.join(sorted(VIDEOS))}"
            )
        paths.update(dict.fromkeys(found))
    if len(inputs) == 1 and os.path.isdir(os.path.expanduser(inputs[0])):
        root = os.path.expanduser(inputs[0])
    else:
        root = _common_folder(list(paths))
    start = os.path.abspath(root)
    sources = [
        ImageSource(path, os.path.relpath(os.path.abspath(path), start).replace(os.sep, "/"), _is_video(path))
        for path in paths
    ]
    return sources, root


def _paths_of(given: str, stdin) -> list[str]:
    if given == STDIN:
        return _listed((sys.stdin if stdin is None else stdin).read(), "")
    path = os.path.expanduser(given)
    if os.path.isdir(path):
        return _in_folder(path)
    if not os.path.exists(path) and any(sign in path for sign in "*?["):
        return sorted(each for each in glob.glob(path, recursive=True) if os.path.isfile(each))
    if not os.path.exists(path):
        raise ValueError(f"{given}: no such file or folder.{did_you_mean(path)}")
    if os.path.splitext(path)[1].lower() in LISTS:
        return _listed(read_text(path), os.path.dirname(path))
    return [path]


def _in_folder(folder: str) -> list[str]:
    endings = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [os.path.join(place, name) for name in sorted(names) if os.path.splitext(name)[1].lower() in endings]
    return found


def _listed(text: str, folder: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    return [os.path.join(folder, os.path.expanduser(line)) for line in lines if line]


def _common_folder(paths: Sequence[str]) -> str:
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
    try:
        return os.path.commonpath(folders)
    except ValueError:  # several drives
        return os.sep


def _is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEOS


def count_frames(path: str) -> int:
    """Return the number of frames in a video's header, at least 0. Headers may be wrong."""
    import cv2

    video = cv2.VideoCapture(path)
    try:
        return max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    finally:
        video.release()


def frames(path: str, wanted=lambda number: True) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the frames of a video as (number, pixels): numbers from 0, pixels (H, W, 3) uint8 RGB.

    Args:
        wanted: number -> bool: which frames to yield. The others are not converted to RGB, which saves time.

    Raises:
        OSError: OpenCV cannot read the file as a video.
    """
    import cv2

    video = cv2.VideoCapture(path)
    try:
        number = 0
        while video.grab():
            if wanted(number):
                read, pixels = video.retrieve()
                if not read:
                    raise OSError(f"frame {number} of {path} cannot be decoded")
                yield number, np.ascontiguousarray(pixels[:, :, ::-1])
            number += 1
        if number == 0:
            raise OSError(f"{path} is not a video that OpenCV can read, or has no frames")
    finally:
        video.release()
