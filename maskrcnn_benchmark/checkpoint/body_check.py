"""Check that a checkpoint has the weights that a model requires; without them the model runs with wrong results."""

from __future__ import annotations

import re

from .load_report import LoadReport, describe, named

# Counters have no effect, and ImageNet files have no offset convolutions of deformable layers.
_OPTIONAL = re.compile(r"\.num_batches_tracked$|\.offset\.(weight|bias)$")
_RUNNING = re.compile(r"\.running_(mean|var)$")


def _shapes_of(keys, shapes) -> str:
    return named(f"{key} {shapes[key]}" for key in keys)


# A body alone, as returned by build_backbone(NAME), or after "body." with an FPN.
_BODY_NAMES = re.compile(r"^(body\.)?(stem\.|(stage|layer)\d+\.|features\.\d)")


def _prefix_of_body(model_keys) -> str | None:
    """Return the prefix of the body's names in a model, or None if it has no body."""
    keys = list(model_keys)
    if any(key.startswith("backbone.body.") for key in keys):
        return "backbone.body."
    if keys and all(_BODY_NAMES.search(key) or key.startswith("fpn.") for key in keys):
        return "body." if any(key.startswith("body.") for key in keys) else ""
    return None


def check_body(report: LoadReport) -> None:
    """Check that a file has all weights of the model's body, and no others of a body.

    The body is `backbone.body` of a detector, or the model itself if it is a body with or without an FPN. Running
    statistics may be missing completely (Caffe2 folds them into the affine weights), but not partly. Heads may be
    missing, as they are trained. Further body weights come from another architecture (V-57's file has all of V-39's
    names). For models without a body at least one tensor must be in the file.

    Raises:
        ValueError: weights are missing or left over; the message shows the names of both sides and what to do.
    """
    prefix = _prefix_of_body(report.model_shapes)
    if prefix is None:
        if report.model_shapes and not (report.matched or report.mismatched):
            _refuse(report, list(report.model_shapes), "no tensor of the model was found in the file")
        return
    body = [key for key in report.model_shapes if key.startswith(prefix) and not key.startswith("fpn.")]

    file_has_statistics = any(_RUNNING.search(key) for key in report.file_shapes)
    needed = [key for key in body if not _OPTIONAL.search(key) and (file_has_statistics or not _RUNNING.search(key))]
    absent = [key for key in needed if key not in report.matched]
    if absent:
        other_shape = [describe(m) for m in report.mismatched if m.model_key in absent]
        where = prefix.rstrip(".") or "the body"
        reason = f"{len(needed) - len(absent)} of the {len(needed)} tensors of {where} were found in the file"
        if other_shape:
            reason += f"; of another shape: {named(other_shape)}"
        _refuse(report, absent, reason)

    parts = {key[len(prefix) :].split(".")[0] for key in body}
    surplus = []
    for key in report.unused:
        name = report.names.get(key, key)
        inside = name.rpartition(prefix)[2] if prefix else re.sub(r"^(backbone\.)?body\.", "", name)
        # Caffe2's convolutions have biases of 0, which are not part of the network.
        has_weights = len(report.file_shapes[key]) >= (1 if file_has_statistics else 2)
        if has_weights and inside.split(".")[0] in parts:
            surplus.append(key)
    if surplus:
        raise ValueError(
            "The file has backbone weights that the model does not have: "
            f"{_shapes_of(surplus, report.file_shapes)}. It is of another architecture or has another norm: set "
            "MODEL.BACKBONE.CONV_BODY (and the keys of its norm) to those of the file."
        )


def check_some(report: LoadReport) -> None:
    """Check that a file has tensors of the model, and all weights if the model is a body.

    Raises:
        ValueError: see `check_body`.
    """
    if _prefix_of_body(report.model_shapes) != "backbone.body.":
        check_body(report)
    elif not (report.matched or report.mismatched):
        _refuse(report, list(report.model_shapes), "no tensor of the model was found in the file")


def check_complete(report: LoadReport, counters_too: bool) -> None:
    """Check that a file has every tensor of the model. A missing one would keep its initial values.

    Args:
        report: LoadReport of the file.
        counters_too: also require num_batches_tracked, which early files of the forks lack.

    Raises:
        ValueError: tensors are missing; the first few are named.
    """
    missing = [key for key in report.missing if counters_too or not key.endswith(".num_batches_tracked")]
    if not missing:
        return
    spare = f" Its tensors without a place in the model are {named(report.unused)}." if report.unused else ""
    raise ValueError(
        f"The file lacks {len(missing)} tensors of the model: {_shapes_of(missing, report.model_shapes)}.{spare} "
        "Either the config differs from that of the training, or the file is damaged: use another checkpoint of the "
        "training. To train from the tensors that match, give it as MODEL.WEIGHT to tools/train_net.py, with a new "
        "OUTPUT_DIR."
    )


def _refuse(report: LoadReport, absent: list[str], reason: str) -> None:
    has_body = _prefix_of_body(report.model_shapes) is not None
    candidates = [key for key in report.unused if len(report.file_shapes[key]) >= 2] or list(report.file_shapes)
    raise ValueError(
        f"The file does not fit {'the backbone' if has_body else 'the model'}: {reason}.\n"
        f"  not found:    {_shapes_of(absent, report.model_shapes)}\n"
        f"  file's names: {_shapes_of(candidates, report.file_shapes)}\n"
        "A name in the file must be the end of a name in the model. Compare MODEL.BACKBONE.CONV_BODY and the norm keys "
        "with those of the file; if only the names differ, rename them. To load the tensors that match, use "
        "maskrcnn_benchmark.utils.model_serialization.load_state_dict(model, state)."
    )
