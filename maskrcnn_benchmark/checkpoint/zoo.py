"""Fetch published weights by name, and verify files.

The table is config/published_weights.json, see config.weights_table; `tools/weights.py` shows it.
"""

from __future__ import annotations

import hashlib
import os

from maskrcnn_benchmark.config.packaged_weights import packaged_weights
from maskrcnn_benchmark.config.weights_table import PublishedWeights, find_weights, weights_at, weights_table

from .download import cache_folder, download

__all__ = ["PublishedWeights", "check_file", "fetch", "find_weights", "local_file", "weights_at", "weights_table"]


def fetch(weights: PublishedWeights | str, progress: bool = True) -> str:
    """Download published weights unless they are cached or in an installed package, and return their path.

    Args:
        weights: an entry or its name, see `find_weights`.
        progress: print percentages to stderr if it is a terminal.

    Raises:
        UnknownNameError: the name is unknown.
        FileNotFoundError: no address is known, or the package is not installed.
        ConnectionError, ValueError: see `download.download`.
    """
    entry = find_weights(weights) if isinstance(weights, str) else weights
    if entry.package is not None:
        return packaged_weights(entry.name, entry.package, entry.sha256)
    if not entry.addresses:
        raise FileNotFoundError(
            f"no address of {entry.name} is known ({entry.note}). Any local file of it works: give its path as "
            "MODEL.WEIGHT."
        )
    return download(entry.addresses, entry.file, entry.size, entry.sha256, progress=progress)


def local_file(entry: PublishedWeights) -> str | None:
    """Return the path that `fetch` would return without a download, or None. The file is not verified."""
    if entry.package is not None:
        try:
            return packaged_weights(entry.name, entry.package, entry.sha256)
        except (FileNotFoundError, ValueError):
            return None
    path = os.path.join(cache_folder(), entry.file)
    return path if entry.file and os.path.exists(path) else None


def check_file(path: str | os.PathLike, entry: PublishedWeights) -> tuple[int, str]:
    """Compare a file's size and hash with those in the table, if known.

    Returns:
        Size in bytes, and sha256.

    Raises:
        ValueError: size or hash differ.
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        size = file.tell()
    sha256 = digest.hexdigest()
    if entry.size is not None and size != entry.size:
        raise ValueError(f"{path} has {size} bytes, but {entry.name} has {entry.size}: it is damaged or another file")
    if entry.sha256 and sha256 != entry.sha256:
        raise ValueError(
            f"{path} has sha256 {sha256}, but {entry.name} has {entry.sha256}: it is damaged or another file"
        )
    return size, sha256
