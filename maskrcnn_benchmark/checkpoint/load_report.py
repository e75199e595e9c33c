"""Report which tensors of a checkpoint were loaded into which tensors of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_STATISTICS = re.compile(r"\.(running_mean|running_var|num_batches_tracked)$")


class Mismatch(NamedTuple):
    """A tensor of the file with the name of a model tensor but another shape."""

    model_key: str
    model_shape: tuple[int, ...]
    file_key: str
    file_shape: tuple[int, ...]


def shortened(text: str, limit: int = 120) -> str:
    """Remove the middle of a text longer than about `limit` characters; names in a file may have any length."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} ... {text[-limit // 4 :]}"


def named(keys: Iterable[str], limit: int = 4) -> str:
    """Join the first `limit` keys, and append the number of further ones."""
    keys = [shortened(key, 300) for key in keys]
    more = f", ... and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


@dataclass
class LoadReport:
    """Result of matching the tensors of a file with those of a model.

    Attributes:
        matched: model key -> file key of the loaded tensors; several model keys may have the same file key.
        missing: model keys without a tensor in the file, which keep their values.
        unused: file keys without a model key.
        mismatched: tensors with the same name but another shape; an error unless the caller skips them.
        skipped: mismatched tensors that the caller skipped, which keep their values.
        model_shapes, file_shapes: shape by key, in the order of the model and of the file. The file's shapes have our
            rows of classes.
        names: file key -> our name.
        from_config: missing model keys that are computed from the config (anchors).
        without_use: file keys that detectors never use (a classifier, counters of batch norms).
        dialects: names of the dialects that were applied.
        convention: MODEL.CONVENTION of the file, if its dialect has one.
    """

    matched: dict[str, str]
    missing: list[str]
    unused: list[str]
    mismatched: list[Mismatch]
    model_shapes: Mapping[str, tuple[int, ...]]
    file_shapes: Mapping[str, tuple[int, ...]]
    names: Mapping[str, str] = field(default_factory=dict)
    from_config: list[str] = field(default_factory=list)
    without_use: list[str] = field(default_factory=list)
    dialects: tuple[str, ...] = ()
    convention: str | None = None
    skipped: list[Mismatch] = field(default_factory=list)

    def table(self) -> str:
        """Format one line per attribute, with the count and the first few names."""
        missing = [key for key in self.missing if not _STATISTICS.search(key)]
        statistics = [key for key in self.missing if _STATISTICS.search(key)]
        rows = [
            ("loaded", list(self.matched), False),
            ("missing in the file", missing, True),
            ("missing statistics", statistics, True),
            ("from the config", self.from_config, False),
            ("unused in the file", self.unused, True),
            ("never used here", self.without_use, True),
            ("other shape", [describe(mismatch) for mismatch in [*self.mismatched, *self.skipped]], True),
        ]
        title = f"{len(self.matched)} of the model's {len(self.model_shapes)} tensors were found in the file"
        lines = [f"{title} ({', '.join(self.dialects)})" if self.dialects else title]
        for label, keys, with_names in rows:
            lines.append(f"  {label:<20}{len(keys):>5}  {named(keys) if with_names else ''}".rstrip())
        if missing or self.skipped:
            lines.append("  Tensors that are missing or have another shape keep their initial values.")
        return "\n".join(lines)


def describe(mismatch: Mismatch) -> str:
    other_name = "" if mismatch.file_key == mismatch.model_key else f" ({mismatch.file_key})"
    return f"{mismatch.model_key}: file {mismatch.file_shape}{other_name}, model {mismatch.model_shape}"


def _classes(key: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, int] | None:
    """Return the config key of a head's number of classes, and the number (with background) from a tensor's shape."""
    rows = shape[0] if shape else 0
    if "rpn.head.cls_logits" in key:
        if any("rpn.head.centerness" in name for name in shapes):
            return "MODEL.FCOS.NUM_CLASSES", rows + 1
        if any("rpn.head.cls_tower" in name for name in shapes):
            deltas = [shape[0] for name, shape in shapes.items() if "rpn.head.bbox_pred" in name and shape]
            return "MODEL.RETINANET.NUM_CLASSES", (rows // (deltas[0] // 4) if deltas and deltas[0] >= 4 else rows) + 1
    elif "cls_score" in key or "mask_fcn_logits" in key or "predictor.maskiou" in key:
        has_box_head = any("roi_heads.box." in name for name in shapes)
        return f"MODEL.{'ROI_BOX_HEAD' if has_box_head else 'FCOS'}.NUM_CLASSES", rows
    elif "roi_heads" in key and "bbox_pred" in key:
        return "MODEL.ROI_BOX_HEAD.NUM_CLASSES", rows // 4
    elif "kps_score" in key:
        return "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", shape[1] if len(shape) > 1 else rows
    return None


def class_count_hint(report: LoadReport) -> str:
    """Return a hint for mismatches caused by another number of classes or anchors, or "" for others."""
    for model_key, model_shape, file_key, file_shape in report.mismatched:
        in_file = _classes(model_key, file_shape, {**report.model_shapes, **report.file_shapes})
        in_model = _classes(model_key, model_shape, report.model_shapes)
        if in_file and in_model and in_file[1] != in_model[1]:
            what = "keypoints" if "KEYPOINT" in in_file[0] else "classes, including background"
            return (
                f"The file was trained with {in_file[1]} {what}, but the model has {in_model[1]}: set {in_file[0]} to "
                f"{in_file[1]} to use the file unchanged. To train other classes from it, give it as MODEL.WEIGHT to "
                "tools/train_net.py, which keeps the initial values of such heads (load(..., "
                "skip_mismatched_heads=True)), or remove the entry "
                f"{file_key} and similar ones from the file."
            )
        if re.search(r"anchor|rpn\.head\.(cls_logits|bbox_pred)", model_key):
            return "The anchors differ: compare ANCHOR_SIZES, ASPECT_RATIOS and ANCHOR_STRIDE with the file's config."
    return ""
