"""Enumerate pairs within groups, for arrays with millions of rows.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def pairs_in_groups(groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs of rows of the same group, each pair once, in parts (first, second): two arrays of row indices.

    Rows are sorted by group. The first part has all pairs of neighbours, the second all pairs of rows that are two
    apart, and so on.

    Args:
        groups: (N,) group numbers.
    """
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    first = np.arange(len(order) - 1)
    distance = 1
    while len(first):
        first = first[first + distance < len(order)]
        first = first[ordered[first] == ordered[first + distance]]
        if len(first):
            yield order[first], order[first + distance]
        distance += 1
