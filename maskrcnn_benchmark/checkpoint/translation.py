"""From the names of another program to ours and back, for whole state dicts: the tables are in checkpoint_dialects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from .class_rows import CLASS_ROWS
from .dialects import DIALECTS, TARGETS, Dialect
from .key_tables import rename
from .load_report import named

BODY = "backbone.body."

# What detectors have no use for, unless the model has it under the same name: classifiers, pixel means, anchors (they
# come from the config), and counters of batch norms that are frozen.
COUNTER = re.compile(r"\.num_batches_tracked$")
WITHOUT_USE = re.compile(
    r"^(backbone\.)?(fc|fc1000|classifier|head\.fc|last_linear|model\.classifier)\.|(^|\.)features\.18\."
    rf"|anchor_generator\.|^pixel_(mean|std)$|{COUNTER.pattern}"
)
# Ours that other programs compute themselves; and the second name of C4's layer4, which box and mask head share.
OURS_ALONE = re.compile(r"^rpn\.anchor_generator\.|^roi_heads\.mask\.feature_extractor\.head\.")


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
    names, tensors = {key: key for key in file_state}, dict(file_state)
    model_text = "\n".join(model_keys)
    dialects = []
    for dialect in DIALECTS:
        speaks = re.search(dialect.theirs, "\n".join(names.values()), re.M)
        if not speaks or re.search(dialect.theirs, model_text, re.M):
            continue
        dialects.append(dialect)
        for key, name in names.items():
            names[key] = rename(name, dialect.rows)
            if names[key] != name:
                tensors[key] = CLASS_ROWS[dialect.class_rows].to_ours(names[key], tensors[key])
    # A key that has our name already keeps it; one that would be renamed to the same stays unused.
    file_keys = {name: key for key, name in names.items() if name == key or names.get(name) != name}
    return Translation({name: tensors[key] for name, key in file_keys.items()}, file_keys, tuple(dialects))


def convert_state_dict(file_state: Mapping[str, Tensor], to: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file in any dialect under the names of another.

    What has no name of ours (a classifier, say) keeps the file's in a file of ours, so that the way back is complete.

    Args:
        to: a key of checkpoint_dialects.TARGETS.

    Returns:
        the tensors by their new names, in the order of the file, and the names (the file's) of what was left out.

    Raises:
        ValueError: `to` is not known, or it has no names for something in the file.
    """
    if to not in TARGETS:
        raise ValueError(f"the dialect {to!r} is not known; known are {', '.join(map(repr, TARGETS))}")
    target, source = TARGETS[to], to_ours(file_state)
    if not target.dialects:
        return source.tensors, [key for key in file_state if key not in set(source.file_keys.values())]

    is_body = not any(name.startswith(("backbone.", "rpn.", "roi_heads.")) for name in source.tensors)
    names = {name: target.alone + name.removeprefix("body.") if is_body else name for name in source.tensors}
    all_names = "\n".join(names.values())
    dialects = [d for d in reversed(target.dialects) if d.ours and re.search(d.ours, all_names, re.M)]
    converted, left_out, unknown = {}, [], []
    for name, tensor in source.tensors.items():
        ours = names[name]
        theirs = ours.removeprefix(BODY) if target.body_only else ours
        for dialect in dialects:
            renamed = rename(theirs, dialect.rows, to_ours=False)
            if renamed != theirs:
                theirs = renamed
                tensor = CLASS_ROWS[dialect.class_rows].from_ours(ours, tensor, source.tensors)
        if target.extras and re.search(target.extras, name):
            converted[name] = tensor
        elif OURS_ALONE.search(name) or (WITHOUT_USE.search(name) and not COUNTER.search(name)):
            left_out.append(source.file_keys[name])
        elif theirs != ours:
            converted[theirs] = tensor
        elif target.body_only:
            left_out.append(source.file_keys[name])
        else:
            unknown.append(source.file_keys[name])
    if unknown or not dialects:
        raise ValueError(
            f"{to} has no names for {named(unknown or list(file_state))}: it has no such architecture, or its table in "
            "maskrcnn_benchmark/utils/checkpoint_dialects.py lacks a row"
        )
    return converted, left_out
