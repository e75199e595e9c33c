"""Figures as aligned plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maskrcnn_benchmark.evaluation.coco_evaluator import ClassFigures

# More classes than this are folded into several columns, so that a table of 80 fits a screen.
ROWS_OF_ONE_COLUMN = 20
FOLDED_COLUMNS = 3


def per_class_table(task: str, figures: Sequence[ClassFigures]) -> str:
    """A line a class: name, ground-truth boxes, AP, AP50 (fractions; "-" where no ground truth decides it)."""
    rows = [(entry.name, str(entry.boxes), _fraction(entry.AP), _fraction(entry.AP50)) for entry in figures]
    return _table(task, ("class", "boxes", "AP", "AP50"), rows)


def class_table(task: str, rows: Sequence[Mapping[str, object]]) -> str:
    """A line a row: its values under their keys, which are those of the first row; fractions with four digits."""
    header = list(rows[0]) if rows else ["class"]
    cells = [[f"{row[key]:.4f}" if isinstance(row[key], float) else str(row[key]) for key in header] for row in rows]
    return _table(task, header, cells)


def _table(task: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    blocks = 1 if len(rows) <= ROWS_OF_ONE_COLUMN else FOLDED_COLUMNS
    height = max(1, -(-len(rows) // blocks))
    folded = [_aligned(header, rows[k * height : (k + 1) * height]) for k in range(blocks)]
    lines = ["   |   ".join(block[line] for block in folded if line < len(block)) for line in range(len(folded[0]))]
    return "\n".join([f"{task}, per class:", *lines])


def _fraction(value: float) -> str:
    return "-" if value < 0 else f"{value:.4f}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of equal width: first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in (header, *rows)
    ]
