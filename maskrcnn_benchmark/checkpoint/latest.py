"""Find the checkpoint to resume from: the one named in `last_checkpoint`, else the newest undamaged one beside it."""

from __future__ import annotations

import logging
import os
import re

from .load_report import shortened
from .safe_unpickle import check_regular, check_sound

_LONGEST_TAG = 1 << 16


def _read_tag(tag: str) -> str:
    """Read the path in `last_checkpoint`; "" if it cannot be read, is empty or is not a path."""
    try:
        check_regular(tag)
        with open(tag, "rb") as file:
            name = os.fsdecode(file.read(_LONGEST_TAG)).strip()
    except (OSError, ValueError):
        return ""
    return "" if "\0" in name else name


def _why_not(path: str) -> str:
    """Return the problem of a checkpoint, or "" if there is none."""
    try:
        check_sound(path)
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"can't be used ({shortened(str(error), 400)})"
    return ""


def numbered_checkpoints(folder: str) -> list[str]:
    """Return the folder's model_NUMBER.pth, highest number first, then model_final.pth.

    Files are sorted by number, as copying a folder changes their times. Numbers come before model_final.pth, because
    resuming from them is always correct.
    """
    numbered = [name for name in os.listdir(folder) if re.fullmatch(r"model_[0-9]{1,18}\.pth", name)]
    numbered.sort(key=lambda name: int(re.search(r"[0-9]+", name)[0]), reverse=True)
    return [os.path.join(folder, name) for name in [*numbered, "model_final.pth"]]


def find_latest(folder: str, logger: logging.Logger) -> str:
    """Return the checkpoint named in `folder`/last_checkpoint, or a replacement if it is missing or damaged.

    The replacement is the file of the same name in `folder` (the folder may have been moved), else the newest undamaged
    model_*.pth there; it is logged. Files are read completely and compared with their checksums.

    Raises:
        FileNotFoundError: no such file is undamaged.
    """
    tag = os.path.join(folder, "last_checkpoint")
    name = _read_tag(tag)
    problem = _why_not(name) if name else "is not a file name"
    if not problem:
        return name
    shown = shortened(name, 300)
    # split at both separators, as the folder may come from another system
    beside = os.path.join(folder, re.split(r"[\\/]", name)[-1]) if name else ""
    if name and os.path.abspath(beside) != os.path.abspath(name):
        problem_beside = _why_not(beside)
        if not problem_beside:
            logger.info(f"{tag} names {shown}, which {problem}; using {beside}")
            return beside
        if os.path.lexists(beside):
            problem = problem_beside
    for candidate in numbered_checkpoints(folder):
        if candidate != beside and not _why_not(candidate):
            logger.warning(f"{tag} names {shown!r}, which {problem}; falling back to {candidate}")
            return candidate
    raise FileNotFoundError(
        f"{tag} names {shown!r}, which {problem}, and there is no undamaged model_*.pth beside it. "
        "Put a checkpoint there, or remove last_checkpoint to start from the beginning."
    )
