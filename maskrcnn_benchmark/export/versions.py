"""Versions of the packages that an exported file was written and compared with."""

from __future__ import annotations

from importlib import metadata

from maskrcnn_benchmark.export.formats import PACKAGES
from maskrcnn_benchmark.export.ops import OPSET


def versions(kind: str) -> str:
    """Return one line: the opset, and versions of torch and of the packages of a format."""
    parts = [] if kind == "torch_export" else [f"opset {OPSET}"]
    for package in ("torch", *PACKAGES[kind]):
        parts.append(f"{package} {metadata.version(package)}")
    return ", ".join(parts)
