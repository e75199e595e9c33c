"""Whether a checkpoint has the weights of a detector's backbone: without them everything runs, and is wrong."""

from __future__ import annotations

import re

from .load_report import LoadReport, describe, named

# Counters steer nothing here, and the offset convolutions of deformable layers are no part of ImageNet files.
_OPTIONAL = re.compile(r"\.num_batches_tracked$|\.offset\.(weight|bias)$")
_RUNNING = re.compile(r"\.running_(mean|var)$")


def _shapes_of(keys, shapes) -> str:
    return named(f"{key} {shapes[key]}" for key in keys)


def check_body(report: LoadReport) -> None:
    """Refuses a file that does not fill `backbone.body` of the model, or that has more of a body than the model.

    All weights of the body have to be there. Running statistics may be missing altogether (Caffe2 folded them into the
    affine weights), not in part. Heads may be missing: they are trained anew. Weights of the file that would belong
    inside the body but have no place there tell of another architecture (V-57's file has all of V-39's names).

    Raises:
        ValueError: what is missing or too much, how the names differ, and what to do.
    """
    prefix = "backbone.body."
    body = [key for key in report.model_shapes if key.startswith(prefix)]
    if not body:
        if not report.matched:
            _refuse(report, list(report.model_shapes), "no tensor of the model was found in the file")
        return

    file_has_statistics = any(_RUNNING.search(key) for key in report.file_shapes)
    needed = [key for key in body if not _OPTIONAL.search(key) and (file_has_statistics or not _RUNNING.search(key))]
    absent = [key for key in needed if key not in report.matched]
    if absent:
        other_shape = [describe(m) for m in report.mismatched if m.model_key in absent]
        reason = f"{len(needed) - len(absent)} of the {len(needed)} tensors of backbone.body were found in the file"
        if other_shape:
            reason += f"; of another shape: {named(other_shape)}"
        _refuse(report, absent, reason)

    parts = {key[len(prefix) :].split(".")[0] for key in body}
    surplus = []
    for key in report.unused:
        inside = report.names.get(key, key).rpartition(prefix)[2]
        # Caffe2's convolutions have biases of 0, which are no part of the network.
        has_weights = len(report.file_shapes[key]) >= (1 if file_has_statistics else 2)
        if has_weights and inside.split(".")[0] in parts:
            surplus.append(key)
    if surplus:
        raise ValueError(
            "The file holds more of a backbone than the model has: no place for "
            f"{_shapes_of(surplus, report.file_shapes)}. It was made for another architecture or another norm: set "
            "MODEL.BACKBONE.CONV_BODY (and the keys of its norm) to those of the file."
        )


def _refuse(report: LoadReport, absent: list[str], reason: str) -> None:
    candidates = [key for key in report.unused if len(report.file_shapes[key]) >= 2] or list(report.file_shapes)
    raise ValueError(
        f"The file does not fit the backbone: {reason}.\n"
        f"  not found:    {_shapes_of(absent, report.model_shapes)}\n"
        f"  file's names: {_shapes_of(candidates, report.file_shapes)}\n"
        "A file's name has to be the end of the model's name. Compare MODEL.BACKBONE.CONV_BODY and the norm keys with "
        "those the file was made with; if only the names differ, rename them. To load whatever fits, use "
        "maskrcnn_benchmark.checkpoint.checkpointer.Checkpointer."
    )
