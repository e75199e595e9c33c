"""Format figures as aligned plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maskrcnn_benchmark.evaluation.coco_evaluator import ClassFigures

# Tables with more rows than this are folded into several columns, so that 80 classes fit on a screen.
ROWS_OF_ONE_COLUMN = 20
FOLDED_COLUMNS = 3


def per_class_table(task: str, figures: Sequence[ClassFigures]) -> str:
    """Format one line per class: name, ground-truth boxes, AP and AP50 as fractions ("-" without ground truth)."""
    rows = [(entry.name, str(entry.boxes), _fraction(entry.AP), _fraction(entry.AP50)) for entry in figures]
    return _table(task, ("class", "boxes", "AP", "AP50"), rows)


def class_table(task: str, rows: Sequence[Mapping[str, object]]) -> str:
    """Format one line per row. The keys of the first row are the header; floats have four decimals."""
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
    """Align rows to lines of equal width: first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in (header, *rows)
    ]
