"""Enumerate pairs within groups, for arrays with millions of rows.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def pairs_in_groups(groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (first, second), index arrays of all pairs of rows with equal groups, each pair once, in parts.

    The parts are all neighbours in the sorted order, all rows two places apart, and so on, until no group has as many.

    Args:
        groups: (N,) numbers.
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
