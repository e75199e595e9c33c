"""Translate state dicts between the names of other programs and ours, by the tables in `dialects`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .anchor_rows import anchors_of, ratios_of, reorder
from .class_rows import CLASS_ROWS
from .conversion_targets import TARGETS
from .dialects import DIALECTS, Dialect
from .key_tables import rename
from .load_report import named

BODY = "backbone.body."

# Tensors that detectors do not use, unless the model has the same name: classifiers, pixel means, anchors (computed
# from the config), and counters of frozen batch norms.
COUNTER = re.compile(r"\.num_batches_tracked$")
WITHOUT_USE = re.compile(
    r"^(backbone\.)?(fc|fc1000|classifier|head\.fc|last_linear|model\.classifier)\.|(^|\.)features\.18\."
    rf"|^n_averaged$|anchor_generator\.|^pixel_(mean|std)$|{COUNTER.pattern}"
)
# Our tensors without a counterpart: anchors, and the second name of C4's layer4, which box and mask head share.
OURS_ALONE = re.compile(r"^rpn\.anchor_generator\.|^roi_heads\.mask\.feature_extractor\.head\.")


def is_plain(tensor: Tensor) -> bool:
    """Return whether rows of a tensor can be moved: it is dense and real; meta tensors included."""
    return tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_complex())


@dataclass
class Translation:
    """A file's tensors under our names.

    Attributes:
        tensors: by our name, with rows of classes in our order.
        file_keys: our name -> name in the file.
        dialects: the applied dialects.
    """

    tensors: dict[str, Tensor]
    file_keys: dict[str, str]
    dialects: tuple[Dialect, ...]


def to_ours(
    file_state: Mapping[str, Tensor], model_state: Mapping[str, Tensor] | None = None, aspect_ratios: int | None = None
) -> Translation:
    """Translate the names of a file to ours, except those of a dialect that the model itself uses.

    Args:
        file_state: the file's tensors.
        model_state: the model's tensors, if the file is for a model.
        aspect_ratios: number of aspect ratios of the anchors, if neither model nor file has cell anchors.
    """
    names, tensors = {key: key for key in file_state}, dict(file_state)
    model_text = "\n".join(model_state or ())
    dialects, sizes_outside = [], []
    for dialect in DIALECTS:
        speaks = re.search(dialect.theirs, "\n".join(names.values()), re.M)
        if not speaks or re.search(dialect.theirs, model_text, re.M):
            continue
        dialects.append(dialect)
        before = set(names.values())
        for key, name in names.items():
            if dialect.beside and name.rpartition("/")[0] + dialect.beside not in before:
                continue
            names[key] = rename(name, dialect.rows)
            if names[key] != name:
                if is_plain(tensors[key]):
                    tensors[key] = CLASS_ROWS[dialect.class_rows].to_ours(names[key], tensors[key])
                if dialect.sizes_outside:
                    sizes_outside.append(key)
    # A key with our name keeps it; another key that would be renamed to it is unused.
    file_keys = {name: key for key, name in names.items() if name == key or names.get(name) != name}
    ours = {name: tensors[key] for name, key in file_keys.items()}
    if sizes_outside:
        anchors, ratios = anchors_of(ours), ratios_of(ours, model_state, aspect_ratios)
        for key in sizes_outside:
            name = names[key]
            if file_keys.get(name) == key:
                ours[name] = reorder(name, ours[name], anchors, ratios, to_ours=True)
    return Translation(ours, file_keys, tuple(dialects))


def convert_state_dict(
    file_state: Mapping[str, Tensor], to: str, aspect_ratios: int | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Convert a file's tensors from any dialect to the names of another program.

    In a conversion to our names, tensors without one (such as a classifier) keep the file's name, so that converting
    back is complete.

    Args:
        file_state: the file's tensors.
        to: a key of conversion_targets.TARGETS.
        aspect_ratios: number of aspect ratios of the anchors; default: from the file's cell anchors, else three.

    Returns:
        The tensors by their new names, in the order of the file, and the file's names of dropped tensors.

    Raises:
        ValueError: `to` is unknown, or it has no name for a tensor of the file.
    """
    if to not in TARGETS:
        raise ValueError(f"unknown dialect {to!r}; known are {', '.join(map(repr, TARGETS))}")
    target, source = TARGETS[to], to_ours(file_state, aspect_ratios=aspect_ratios)
    if not target.dialects:
        return source.tensors, [key for key in file_state if key not in set(source.file_keys.values())]

    is_body = not any(name.startswith(("backbone.", "rpn.", "roi_heads.")) for name in source.tensors)
    names = {name: target.alone + name.removeprefix("body.") if is_body else name for name in source.tensors}
    all_names = "\n".join(names.values())
    dialects = [d for d in reversed(target.dialects) if d.ours and re.search(d.ours, all_names, re.M)]
    swaps_anchors = any(dialect.sizes_outside for dialect in dialects)
    anchors = anchors_of(source.tensors) if swaps_anchors else None
    ratios = ratios_of(source.tensors, given=aspect_ratios) if swaps_anchors else 1
    converted, left_out, unknown = {}, [], []
    for name, tensor in source.tensors.items():
        ours = names[name]
        theirs = ours.removeprefix(BODY) if target.body_only else ours
        for dialect in dialects:
            renamed = rename(theirs, dialect.rows, to_ours=False)
            if renamed != theirs:
                theirs = renamed
                tensor = CLASS_ROWS[dialect.class_rows].from_ours(ours, tensor, source.tensors)
                if dialect.sizes_outside:
                    tensor = reorder(ours, tensor, anchors, ratios, to_ours=False)
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
            f"{to} has no names for {named(unknown or list(file_state))}: it does not have this architecture, or a row "
            "is missing in its table in maskrcnn_benchmark/checkpoint/dialects.py"
        )
    return converted, left_out
