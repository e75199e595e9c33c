"""Writing matplotlib's figures; matplotlib is an extra, so it is imported when one is drawn."""

from __future__ import annotations

import os
from io import BytesIO

from maskrcnn_benchmark.utils.atomic_write import atomic_write


def check_figure_file(path: str | os.PathLike) -> None:
    """For programs that work for long before they draw: raises what new_figure and save_figure would.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: it can't write files with path's ending.
    """
    endings = new_figure().canvas.get_supported_filetypes()
    ending = _ending(path)
    if ending not in endings:
        raise ValueError(f"can't draw to {path}: ending {ending!r} is unknown; use one of {', '.join(sorted(endings))}")


def new_figure(**settings):
    """matplotlib's Figure(**settings), without pyplot's windows.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('drawing needs matplotlib; run: pip install "maskrcnn-benchmark[plot]"') from error
    return Figure(**settings)


def save_figure(figure, path: str | os.PathLike) -> None:
    """Writes the figure, complete or not at all, in the format of path's ending; folders that lack are made.

    Raises:
        ValueError: matplotlib can't write files with that ending.
    """
    check_figure_file(path)
    content = BytesIO()
    figure.savefig(content, format=_ending(path))
    with atomic_write(path) as file:
        file.write(content.getvalue())


def _ending(path: str | os.PathLike) -> str:
    return os.path.splitext(os.fspath(path))[1].lstrip(".").lower()
