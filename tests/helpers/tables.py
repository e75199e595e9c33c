"""Comparing annotation tables."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable

MASKS = ("points", "point_offsets", "offsets", "runs", "run_offsets", "run_sizes")


def assert_same_table(table: AnnotationTable, wanted: AnnotationTable) -> None:
    """Compare all fields, with types of arrays and without tolerance."""
    for field in fields(AnnotationTable):
        found, expected = getattr(table, field.name), getattr(wanted, field.name)
        if field.name == "masks" and expected is not None:
            for name in MASKS:
                _same(getattr(found, name), getattr(expected, name), name)
        else:
            _same(found, expected, field.name)


def _same(found, expected, name: str) -> None:
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype, name
        np.testing.assert_array_equal(found, expected, err_msg=name)
    else:
        assert found == expected, name
