"""Table of published weights: names, addresses, architectures, sizes and hashes.

The table is `published_weights.json`, read at the first use. Fields that were not published are empty.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from .errors import UnknownNameError, nearest
from .packaged_weights import PackagedFile

SCHEME = "catalog://"
TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "published_weights.json")
BACKBONE = "ImageNet backbone"
_ENDING = re.compile(r"\.(pth\.tar|pth|pkl|pt|safetensors|ya?ml)$")


@dataclass(frozen=True)
class PublishedWeights:
    """A published file of weights.

    Args:
        name: name in configs, after catalog://.
        systems: projects with pages or configs that name it.
        architecture: "Faster R-CNN", ..., or BACKBONE.
        backbone: name on the page.
        config: our config for it, relative to the checkout; "" if there is none.
        file: published file name; "" if no address is known.
        addresses: published addresses, some of which no longer work.
        metrics: address of its training log or results.
        licence: "" if its page states none.
        size: bytes; None if unknown.
        sha256: 64 hexadecimal digits; "" if unknown.
        results: published figures in percent, such as "box AP" (COCO) and "mIoU" (VOC 2012).
        package: Python package with the file.
        note: further information for users.
    """

    name: str
    systems: tuple[str, ...]
    architecture: str
    backbone: str
    config: str = ""
    file: str = ""
    addresses: tuple[str, ...] = ()
    metrics: str = ""
    licence: str = ""
    size: int | None = None
    sha256: str = ""
    results: Mapping[str, float] = field(default_factory=dict)
    package: PackagedFile | None = None
    note: str = ""


@lru_cache(maxsize=1)
def weights_table() -> dict[str, PublishedWeights]:
    """Return all published weights, by name."""
    with open(TABLE, encoding="utf-8") as file:
        rows = json.load(file)["weights"]
    table = {}
    for row in rows:
        lists = {key: tuple(row[key]) for key in ("systems", "addresses")}
        package = PackagedFile(**row["package"]) if "package" in row else None
        table[row["name"]] = PublishedWeights(**{**row, **lists, "package": package})
    return table


def find_weights(name: str) -> PublishedWeights:
    """Return the entry of a name, with or without catalog:// before it.

    A unique file name also selects an entry. For detectors, so does a unique config name. Folders and extensions may be
    omitted.

    Raises:
        UnknownNameError (a KeyError): no entry has this name, or several have it.
    """
    name = name.removeprefix(SCHEME)
    table = weights_table()
    if name in table:
        return table[name]
    found = [entry for entry in table.values() if name and name in _other_names(entry)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(entry.name for entry in found)
        raise UnknownNameError(f"{name} matches several models in the catalog: {names}. Give one of these names.")
    raise UnknownNameError(
        f"model {SCHEME}{name} is not in the catalog. Nearest: {', '.join(nearest(name, table))}. "
        "`python tools/weights.py list` shows all. MODEL.WEIGHT may also be a file or an http(s) address."
    )


def weights_at(address: str) -> PublishedWeights | None:
    """Return the entry published at an address, or None; query and fragment are ignored."""
    wanted = _path_of(address)
    return next((e for e in weights_table().values() if any(_path_of(a) == wanted for a in e.addresses)), None)


def _path_of(address: str) -> str:
    # Dropbox has several addresses per file, with different hosts
    return re.sub(r"[?#].*$", "", re.sub(r"^https?://(dl|www)\.dropbox\.com/", "dropbox:", address))


def _other_names(entry: PublishedWeights) -> set[str]:
    names = {entry.file, entry.name.rpartition("/")[2]}
    if entry.architecture != BACKBONE:  # many detectors use the same backbone
        names |= {entry.config, os.path.basename(entry.config)}
    return names | {_ENDING.sub("", name) for name in names}
