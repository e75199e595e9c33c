"""Read checkpoint files in any format, and write our own with a mark of their content."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

import numpy as np
import torch

from maskrcnn_benchmark.utils.atomic_write import atomic_write

from .load_report import named
from .plain_types import to_plain
from .safe_unpickle import check_regular, load_pickled
from .safetensors_file import is_safetensors, read_safetensors

# Entries in which programs store the tensors, in order of preference.
_MODEL_ENTRIES = ("model", "state_dict", "model_state", "model_state_dict", "ema", "ema_model", "model_ema")
_MODEL_ENTRIES += ("ema_state_dict", "state_dict_ema", "model_ema_state_dict", "net", "network", "weights")
_DEEPEST_ENTRY = 3
# Entry of our own files: {"program": PROGRAM, "entries": [...], "tensors": number of them in "model"}.
MARK = "written_by"
PROGRAM = "maskrcnn_benchmark"


def _holds_tensors(value) -> bool:
    return any(isinstance(item, (torch.Tensor, np.ndarray)) for item in value.values())


def read_checkpoint(path: str | os.PathLike) -> dict:
    """Read a file of torch.save, a plain pickle or a .safetensors file.

    Returns:
        Its entries, with the tensors under "model".

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be used; the message says what to do.
    """
    path = check_regular(path)
    loaded = read_safetensors(path) if is_safetensors(path) else load_pickled(path)
    if not hasattr(loaded, "keys"):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not a checkpoint (a dict of tensors by name)")
    for entry in _MODEL_ENTRIES:
        if hasattr(loaded.get(entry), "keys"):
            return {**{key: value for key, value in loaded.items() if key != entry}, "model": _inner(loaded[entry])}
    return {"model": loaded}


def _inner(model):
    """Return the dict with the tensors, which may be in nested entries."""
    for _ in range(_DEEPEST_ENTRY):
        if _holds_tensors(model):
            return model
        inner = next((model[entry] for entry in _MODEL_ENTRIES if hasattr(model.get(entry), "keys")), None)
        if inner is None:
            return model
        model = inner
    return model


@contextlib.contextmanager
def _with_checksums():
    """Make torch write the checksums of zip files, whatever the process's setting."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def write_checkpoint(path: str | os.PathLike, data: dict) -> None:
    """Write nested dicts, lists and tuples of tensors, numbers and strings, atomically and with checksums.

    Raises:
        TypeError: an entry has another type; the message names it.
        OSError: the file could not be written; an older file of this name is not changed.
    """
    plain = to_plain(data)
    try:
        with atomic_write(path) as file, _with_checksums():
            torch.save(plain, file)
    except (OSError, RuntimeError) as error:
        # torch raises an error of its zip writer; the error of the disk is its context
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(
            f"could not write the checkpoint {path}: {reason}. An older file of this name is not changed."
        ) from error


def marked(data: dict) -> dict:
    """Add a mark that lists the file's content, to detect missing parts."""
    data = {key: value for key, value in data.items() if key != MARK}
    mark = {"program": PROGRAM, "entries": list(map(str, data)), "tensors": len(data["model"])}
    return {**data, MARK: mark}


def mark_of(checkpoint: Mapping) -> dict | None:
    """Return the mark of a file written by this package, or None for other files.

    Files from before the mark existed are recognised by their entries "config", a string, and "class_names".
    """
    mark = checkpoint.get(MARK)
    if isinstance(mark, Mapping) and mark.get("program") == PROGRAM:
        return dict(mark)
    if isinstance(checkpoint.get("config"), str) and "class_names" in checkpoint and "model" in checkpoint:
        return {"program": PROGRAM}
    return None


def check_entries(checkpoint: Mapping, mark: Mapping) -> None:
    """Compare a file with its mark.

    Raises:
        ValueError: entries or tensors are missing.
    """
    entries, tensors = mark.get("entries"), mark.get("tensors")
    if isinstance(entries, list):
        missing = [entry for entry in entries if entry not in checkpoint]
        if missing:
            raise ValueError(f"the file is damaged: the entries {named(map(str, missing))} are missing")
    if isinstance(tensors, int) and len(checkpoint["model"]) != tensors:
        raise ValueError(f"the file is damaged: it has {len(checkpoint['model'])} of {tensors} tensors")
