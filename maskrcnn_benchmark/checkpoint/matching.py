"""Match the tensors of a model with those of a checkpoint.

The forks' rule: a file key matches a model key that ends with it, and the longest such file key wins. So a backbone
trained alone ("layer1.0.conv1.weight") loads into a detector ("backbone.body.layer1.0.conv1.weight"), also twice if two
model keys end with it. Before matching, prefixes of wrappers are removed (see `wrappers`), and names of other programs
are translated (see `translation`).
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch

from .detector_kind import other_detector
from .load_report import LoadReport, Mismatch, class_count_hint, describe, named, shortened
from .translation import WITHOUT_USE, Translation, is_plain, to_ours
from .wrappers import find_prefix, strip_common_wrappers, strip_prefix, without_inserted

logger = logging.getLogger("maskrcnn_benchmark.utils.model_serialization")

_MOST_TENSORS = 20_000
_LONGEST_NAME = 1000


def strip_prefix_if_present(state_dict: Mapping, prefix: str) -> Mapping:
    """Remove `prefix` from all keys if all have it, repeatedly."""
    while state_dict and prefix and all(isinstance(key, str) and key.startswith(prefix) for key in state_dict):
        state_dict = OrderedDict((key[len(prefix) :], value) for key, value in state_dict.items())
    return state_dict


def tensors_of(state_dict: Mapping) -> dict[str, torch.Tensor]:
    """Return the tensors and numeric arrays of a state dict as tensors, without the prefixes of wrappers.

    Raises:
        ValueError: there are no tensors, or too many entries.
    """
    if len(state_dict) > _MOST_TENSORS:
        raise ValueError(
            f"the model entry of the checkpoint has {len(state_dict):,} entries; the maximum is {_MOST_TENSORS:,}"
        )
    state_dict = strip_common_wrappers(state_dict)
    tensors = {}
    for key, value in state_dict.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), subok=False))
        if isinstance(value, torch.Tensor) and isinstance(key, str):
            if len(key) > _LONGEST_NAME:
                raise ValueError(
                    f"the checkpoint holds a tensor with a name of {len(key):,} characters: {shortened(key)}"
                )
            tensors[key] = value
    if not tensors:
        entries = named(map(str, list(state_dict)[:20])) or "nothing"
        raise ValueError(f"the model entry of the checkpoint has no tensors, but {entries}")
    return tensors


def _longest_suffix(key: str, names: Mapping[str, object]) -> str | None:
    # one lookup per suffix, longest first: the cost does not grow with the number of file keys
    return next((key[start:] for start in range(len(key)) if key[start:] in names), None)


# Computed from the config; missing in most programs' files.
_FROM_THE_CONFIG = re.compile(r"anchor_generator\.cell_anchors\.\d+$")


def _plain_name(key: str, model_state: Mapping[str, object]) -> str | None:
    """Return the key of a deformable convolution without its "conv.", as in an ordinary convolution, or None."""
    layer, inner, name = key.rpartition("conv.")
    return layer + name if inner and layer + "offset.weight" in model_state else None


def match_state_dicts(model_state: Mapping[str, torch.Tensor], file_state: Mapping[str, torch.Tensor]) -> LoadReport:
    """Match the tensors of a model and of a file; neither is modified."""
    return _match(model_state, to_ours(file_state, model_state), file_state)


def _without_prefix(model_state, file_state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Remove a prefix such as Lightning's or a project's own from the file's names, if the model requires it."""
    prefix = find_prefix(model_state, file_state, lambda state: set(match_state_dicts(model_state, state).matched))
    if not prefix:
        return file_state
    logger.info("The file's names are read without %r", shortened(prefix))
    return {new: file_state[old] for old, new in strip_prefix(file_state, prefix).items()}


def _match(model_state, translation: Translation, file_state) -> LoadReport:
    by_name = dict(translation.file_keys)
    if not any(key.startswith("backbone.") for key in model_state):  # a body alone; the file may be of a detector
        in_body = re.compile(r"(backbone\.)?body\.")
        by_name |= {in_body.sub("", name, 1): key for name, key in by_name.items() if in_body.match(name)}
    tensors = {key: translation.tensors[name] for name, key in translation.file_keys.items()}

    matched, missing, from_config, mismatched = {}, [], [], []
    storages, for_deformable = {}, False
    for key, tensor in model_state.items():
        name = _longest_suffix(key, by_name)
        plain = _plain_name(key, model_state)
        if name is None and plain is not None:
            name = _longest_suffix(plain, by_name)
            for_deformable |= name is not None
        # A second name of the same tensor, such as a layer4 that box head and mask head share.
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() and not tensor.is_meta else key
        file_key = storages.get(place) if name is None else by_name[name]
        if file_key is None:
            (from_config if _FROM_THE_CONFIG.search(key) else missing).append(key)
        elif tensors[file_key].shape == tensor.shape:
            matched[key] = storages[place] = file_key
        else:
            mismatched.append(Mismatch(key, tuple(tensor.shape), file_key, tuple(tensors[file_key].shape)))
    if for_deformable:
        logger.info("Remapping conv weights for deformable conv weights")
    used = {*matched.values(), *(mismatch.file_key for mismatch in mismatched)}
    names = {key: name for name, key in translation.file_keys.items()}
    without_use = [key for key in file_state if key not in used and WITHOUT_USE.search(names.get(key, key))]
    used.update(without_use)
    return LoadReport(
        matched=matched,
        missing=missing,
        unused=[key for key in file_state if key not in used],
        mismatched=mismatched,
        model_shapes={key: tuple(value.shape) for key, value in model_state.items()},
        file_shapes={key: tuple(tensors.get(key, value).shape) for key, value in file_state.items()},
        names=names,
        from_config=from_config,
        without_use=without_use,
        dialects=tuple(dialect.name for dialect in translation.dialects),
        # the last of several dialects is the most special one
        convention=next((each.convention for each in reversed(translation.dialects) if each.convention), None),
    )


def align_and_update_state_dicts(model_state_dict: dict, loaded_state_dict: Mapping) -> LoadReport:
    """Replace the entries of `model_state_dict` by matching tensors of the file with the same shape."""
    file_state = _without_prefix(model_state_dict, tensors_of(loaded_state_dict))
    translation = to_ours(file_state, model_state_dict)
    report = _match(model_state_dict, translation, file_state)
    key_width = max(map(len, report.matched), default=0)
    file_width = max(map(len, report.matched.values()), default=0)
    for key, file_key in report.matched.items():
        model_state_dict[key] = translation.tensors[report.names[file_key]]
        logger.debug(f"{key:<{key_width}} loaded from {file_key:<{file_width}} of shape {report.file_shapes[file_key]}")
    return report


def _check_values(key: str, tensor: torch.Tensor) -> None:
    if is_plain(tensor) and not tensor.is_meta:
        return
    what = "without values (meta)" if tensor.is_meta else f"{tensor.layout} of {tensor.dtype}"
    raise ValueError(f"the tensor {key} of the file is {what}; expected dense real numbers. Convert it before saving.")


def load_state_dict(
    model: torch.nn.Module, loaded_state_dict: Mapping, *, check=None, skip_mismatched_outside: str | None = None
) -> LoadReport:
    """Copy the matching tensors of a checkpoint's "model" entry into `model`, and report them.

    Args:
        model: module to load into.
        loaded_state_dict: the checkpoint's "model" entry.
        check: called with the LoadReport before anything is copied; may raise.
        skip_mismatched_outside: skip tensors of another shape, instead of raising, if their model key does not start
            with this.

    Raises:
        ValueError: a tensor has another shape than the model's, or is sparse, quantised, complex or without values. The
            model is not changed.
    """
    wrapped_names = {without_inserted(key): key for key in model.state_dict()}
    model_state = {without_inserted(key): value for key, value in model.state_dict().items()}
    report = align_and_update_state_dicts(model_state, loaded_state_dict)
    if skip_mismatched_outside is not None:
        head = [m for m in report.mismatched if not m.model_key.startswith(skip_mismatched_outside)]
        report.mismatched = [m for m in report.mismatched if m not in head]
        report.skipped = head
    other = other_detector(report.names.values(), report.model_shapes)
    if other and not report.mismatched:
        logger.warning("%s Only tensors that both have in common are loaded.", other)
    if check is not None:
        check(report)
    if report.mismatched:
        raise ValueError(
            f"{len(report.mismatched)} tensors of the file have another shape than in the model: "
            f"{named(map(describe, report.mismatched))}. {other or class_count_hint(report)}".rstrip()
        )
    for key, file_key in report.matched.items():
        _check_values(file_key, model_state[key])
    model.load_state_dict({wrapped_names[key]: value for key, value in model_state.items()}, strict=True)
    log = logger.info if report.matched and not report.skipped and not other else logger.warning
    log(report.table())
    return report
