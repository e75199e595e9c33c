"""From the names of another program to ours and back, for whole state dicts: the tables are in checkpoint_dialects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .checkpoint_dialects import TARGETS, Dialect, find_dialects
from .class_rows import CLASS_ROWS
from .key_tables import rename
from .load_report import named

BODY = "backbone.body."

# What detectors have no use for: classifiers, counters of batch norms, pixel means, and anchors, which come from the
# config; unless the model has them under the same name.
WITHOUT_USE = re.compile(
    r"^(backbone\.|module\.)?(fc|fc1000|classifier|head\.fc|last_linear|model\.classifier)\."
    r"|(^|\.)features\.18\.|\.num_batches_tracked$|anchor_generator\.|^pixel_(mean|std)$"
)
# Ours that other programs compute themselves; and the second name of C4's layer4, which box and mask head share.
_OURS_ALONE = re.compile(r"^rpn\.anchor_generator\.|^roi_heads\.mask\.feature_extractor\.head\.")


@dataclass
class Translation:
    """A file's tensors under our names.

    Attributes:
        tensors: by our name, with the rows of the classes in our order.
        file_keys: our name -> the file's.
        dialects: the tables that were applied.
    """

    tensors: dict[str, Tensor]
    file_keys: dict[str, str]
    dialects: tuple[Dialect, ...]


def to_ours(file_state: Mapping[str, Tensor], model_keys=()) -> Translation:
    """Translates what is not in our names; a dialect that the model itself speaks is left as it is."""
    dialects = find_dialects(file_state, model_keys)
    names = {}
    for key in file_state:
        names[key] = key
        for dialect in dialects:
            names[key] = rename(names[key], dialect.rows)
    # A key that has our name already keeps it; one that would be renamed to the same stays unused.
    file_keys = {name: key for key, name in names.items() if name == key or names.get(name) != name}
    tensors = {}
    for name, key in file_keys.items():
        tensors[name] = file_state[key]
        for dialect in dialects:
            tensors[name] = CLASS_ROWS[dialect.class_rows][0](name, tensors[name])
    return Translation(tensors, file_keys, dialects)


def convert_state_dict(file_state: Mapping[str, Tensor], to: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file in any dialect under the names of another.

    Args:
        to: a key of checkpoint_dialects.TARGETS.

    Returns:
        the tensors by their new names, in the order of the file, and the names (the file's) of what was left out.

    Raises:
        ValueError: `to` is not known, or it has no names for something in the file.
    """
    if to not in TARGETS:
        raise ValueError(f"the dialect {to!r} is not known; known are {', '.join(map(repr, TARGETS))}")
    target = TARGETS[to]
    source = to_ours(file_state)
    ours, left_out = {}, []
    bare_body = not any(name.startswith(("backbone.", "rpn.", "roi_heads.")) for name in source.tensors)
    for name, tensor in source.tensors.items():
        is_counter = name.endswith(".num_batches_tracked")
        if (source.dialects or target.dialects) and WITHOUT_USE.search(name) and not is_counter:
            left_out.append(source.file_keys[name])
        else:
            ours[BODY + name if bare_body and target.dialects else name] = tensor
    left_out += [key for key in file_state if key not in set(source.file_keys.values())]
    if not target.dialects:
        return ours, left_out

    keys = "\n".join(ours)
    dialects = [d for d in reversed(target.dialects) if d.ours and re.search(d.ours, keys, re.M)]
    converted, unknown = {}, []
    for name, tensor in ours.items():
        file_key = source.file_keys[name.removeprefix(BODY) if bare_body else name]
        if _OURS_ALONE.search(name) or (target.body_only and not name.startswith(BODY)):
            left_out.append(file_key)
            continue
        new_name = name.removeprefix(BODY) if target.body_only else name
        for dialect in dialects:
            tensor = CLASS_ROWS[dialect.class_rows][1](name, tensor, ours)
            new_name = rename(new_name, dialect.rows, to_ours=False)
        if new_name == name:
            unknown.append(file_key)
        converted[new_name] = tensor
    if unknown or not dialects:
        raise ValueError(
            f"{to} has no names for {named(unknown or list(ours))}: it has no such architecture, or its table in "
            "maskrcnn_benchmark/utils/checkpoint_dialects.py lacks a row"
        )
    return converted, left_out
