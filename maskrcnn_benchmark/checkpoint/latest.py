"""Find the checkpoint to resume from: the one that `last_checkpoint` names, else the newest sound one beside it."""

from __future__ import annotations

import logging
import os
import re

from .load_report import shortened
from .safe_unpickle import check_regular, check_sound

_LONGEST_TAG = 1 << 16


def _read_tag(tag: str) -> str:
    """The text of `last_checkpoint`; "" if it can't be read, is empty or can't be a path."""
    try:
        check_regular(tag)
        with open(tag, "rb") as file:
            name = os.fsdecode(file.read(_LONGEST_TAG)).strip()
    except (OSError, ValueError):
        return ""
    return "" if "\0" in name else name


def _why_not(path: str) -> str:
    """What is wrong with the checkpoint; "" if it is sound."""
    try:
        check_sound(path)
    except FileNotFoundError:
        return "is not there"
    except (OSError, ValueError) as error:
        return f"can't be used ({shortened(str(error), 400)})"
    return ""


def numbered_checkpoints(folder: str) -> list[str]:
    """model_NUMBER.pth of the folder, highest number first, then model_final.pth.

    By number, not by time: copying a folder changes times. The number before model_final because going on from there is
    right in any case.
    """
    numbered = [name for name in os.listdir(folder) if re.fullmatch(r"model_[0-9]{1,18}\.pth", name)]
    numbered.sort(key=lambda name: int(re.search(r"[0-9]+", name)[0]), reverse=True)
    return [os.path.join(folder, name) for name in [*numbered, "model_final.pth"]]


def find_latest(folder: str, logger: logging.Logger) -> str:
    """Return the sound checkpoint that `folder`/last_checkpoint names, or the one to take in its place.

    When the named file is missing (the folder was moved), torn or damaged: the file of the same name in the folder,
    else the newest sound model_*.pth there; the log says so. Files are read through and compared with their checksums.

    Raises:
        FileNotFoundError: there is none of these.
    """
    tag = os.path.join(folder, "last_checkpoint")
    name = _read_tag(tag)
    problem = _why_not(name) if name else "is no name of a file"
    if not problem:
        return name
    shown = shortened(name, 300)
    # split at both kinds of separators: the folder may come from another system
    beside = os.path.join(folder, re.split(r"[\\/]", name)[-1]) if name else ""
    if name and os.path.abspath(beside) != os.path.abspath(name):
        problem_beside = _why_not(beside)
        if not problem_beside:
            logger.info(f"{tag} names {shown}, which {problem}; taking {beside}")
            return beside
        if os.path.lexists(beside):
            problem = problem_beside
    for candidate in numbered_checkpoints(folder):
        if candidate != beside and not _why_not(candidate):
            logger.warning(f"{tag} names {shown!r}, which {problem}; falling back to {candidate}")
            return candidate
    raise FileNotFoundError(
        f"{tag} names {shown!r}, which {problem}, and there is no sound model_*.pth beside it. "
        "Put a checkpoint there, or remove last_checkpoint to start anew."
    )
