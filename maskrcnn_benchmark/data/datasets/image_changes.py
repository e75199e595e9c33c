"""Detect images that have changed since the dataset was read."""

from __future__ import annotations

from maskrcnn_benchmark.data.datasets.table_cache import rebuild_command


class ImageChangedError(ValueError):
    """An image has another size than when the dataset was read."""


def refuse_other_size(size: tuple[int, int], known: tuple[int, int]) -> None:
    """Compare (width, height) of a decoded image with the dataset's.

    Raises:
        ImageChangedError: they differ.
    """
    if size != known:
        raise ImageChangedError(
            f"the image is {size[0]} x {size[1]} now and was {known[0]} x {known[1]} when the dataset was read"
        )


def hint_for(error: Exception, table_file: str | None) -> str:
    """Return advice on an image that failed to load, for the end of an error message; "" if there is none.

    Args:
        table_file: path of the dataset's table; None if it is in memory.
    """
    if isinstance(error, ImageChangedError) and table_file is None:
        return ". Start again to check all images."
    if isinstance(error, (ImageChangedError, OSError)) and table_file is not None:
        return f". If images have changed on purpose: {rebuild_command(table_file)}"
    return ""
