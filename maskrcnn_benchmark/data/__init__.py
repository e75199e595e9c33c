"""Datasets, transforms, samplers and data loaders."""

from .build import make_data_loader
from .label_space import (
    check_annotations,
    check_evaluation,
    check_label_names,
    check_label_spaces,
    label_ids,
    label_names,
    resolve_num_classes,
)

__all__ = [
    "check_annotations",
    "check_evaluation",
    "check_label_names",
    "check_label_spaces",
    "label_ids",
    "label_names",
    "make_data_loader",
    "resolve_num_classes",
]
