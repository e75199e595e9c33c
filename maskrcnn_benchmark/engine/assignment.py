"""Solve the linear assignment problem: pair rows with columns for the greatest total gain.

Shapes: R rows, C columns.
"""

from __future__ import annotations

import numpy as np


def best_pairs(gain: np.ndarray) -> np.ndarray:
    """Pair each row with at most one column, and each column with at most one row, for the greatest total gain.

    Shortest augmenting paths with dual variables (Jonker and Volgenant, Computing 1987), O(min(R, C)^2 max(R, C)).

    Args:
        gain: (R, C) float, finite. Entries of 0 or less are never paired.

    Returns:
        (P, 2) int64: (row, column) of each pair, in ascending order of rows.
    """
    gain = np.maximum(np.asarray(gain, dtype=np.float64), 0)
    if gain.shape[0] > gain.shape[1]:
        pairs = best_pairs(gain.T)[:, ::-1]
        return pairs[pairs[:, 0].argsort()]
    rows, columns = gain.shape
    row_dual, column_dual = np.zeros(rows), np.zeros(columns)
    row_of = np.full(columns, -1)
    for new_row in range(rows):
        shortest, came_from, done = np.full(columns, np.inf), np.full(columns, -1), np.zeros(columns, dtype=bool)
        row, column, length = new_row, -1, 0.0
        while row >= 0:
            through = length - gain[row] - row_dual[row] - column_dual
            better = ~done & (through < shortest)
            shortest[better], came_from[better] = through[better], column
            column = int(np.where(done, np.inf, shortest).argmin())
            length, done[column] = shortest[column], True
            row = row_of[column]
        row_dual[new_row] += length
        passed = done.copy()
        passed[column] = False
        row_dual[row_of[passed]] += length - shortest[passed]
        column_dual[passed] -= length - shortest[passed]
        while column >= 0:  # flip the path: each column takes the row of its predecessor
            before = came_from[column]
            row_of[column] = new_row if before < 0 else row_of[before]
            column = before
    pairs = np.stack((row_of, np.arange(columns)), axis=1)[row_of >= 0]
    pairs = pairs[gain[pairs[:, 0], pairs[:, 1]] > 0]
    return pairs[pairs[:, 0].argsort()]
