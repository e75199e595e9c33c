"""Write matplotlib's figures. matplotlib is an extra, so it is only imported to draw one."""

from __future__ import annotations

import os
from io import BytesIO

from maskrcnn_benchmark.utils.atomic_write import atomic_write


def check_figure_file(path: str | os.PathLike) -> None:
    """Check that a figure can be saved to `path`, for programs that run for long before they draw.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: matplotlib can't write files with this extension.
    """
    endings = new_figure().canvas.get_supported_filetypes()
    ending = _ending(path)
    if ending not in endings:
        raise ValueError(f"can't draw to {path}: ending {ending!r} is unknown; use one of {', '.join(sorted(endings))}")


def new_figure(**settings):
    """Return matplotlib's Figure(**settings), without pyplot's windows.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('drawing requires matplotlib; run: pip install "maskrcnn-benchmark[plot]"') from error
    return Figure(**settings)


def save_figure(figure, path: str | os.PathLike) -> None:
    """Write the figure, completely or not at all, in the format of path's extension; missing folders are created.

    Raises:
        ValueError: matplotlib can't write files with that extension.
    """
    check_figure_file(path)
    content = BytesIO()
    figure.savefig(content, format=_ending(path))
    with atomic_write(path) as file:
        file.write(content.getvalue())


def _ending(path: str | os.PathLike) -> str:
    return os.path.splitext(os.fspath(path))[1].lstrip(".").lower()
