"""Published weights by name: where they are, what they are, and what is known of the files.

The table is `published_weights.json`, read at the first use. A field that nobody has published stays empty.
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
    """A file of weights that somebody has published.

    Args:
        name: what configs call it, behind catalog://.
        systems: whose pages or configs name it.
        architecture: "Faster R-CNN", ..., or BACKBONE.
        backbone: as the page calls it.
        config: our configuration for it, relative to the checkout; "" where there is none.
        file: the name that it was published under; "" where no address is known.
        addresses: as they were published. Several no longer answer.
        metrics: address of its training log or results.
        licence: "" if its page states none.
        size: bytes; None if unknown.
        sha256: 64 hexadecimal digits; "" if unknown.
        results: published figures in percent, such as "box AP" (COCO) and "mIoU" (VOC 2012).
        package: Python package that has the file.
        note: what else a user should know.
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

    The name of the file and, for detectors, of the configuration stand for an entry, too, if they are those of one
    entry only; with or without folders and endings.

    Raises:
        UnknownNameError (a KeyError): there is no such entry, or several.
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
        raise UnknownNameError(f"{name} may be one of several models in the catalog: {names}. Give one of these names.")
    raise UnknownNameError(
        f"model {SCHEME}{name} is not in the catalog. Nearest: {', '.join(nearest(name, table))}. "
        "`python tools/weights.py list` shows all. MODEL.WEIGHT also takes a file or an http(s) address."
    )


def weights_at(address: str) -> PublishedWeights | None:
    """Return the entry that was published at an address, whatever follows its path."""
    wanted = _path_of(address)
    return next((e for e in weights_table().values() if any(_path_of(a) == wanted for a in e.addresses)), None)


def _path_of(address: str) -> str:
    # one file has several addresses at Dropbox, which differ in the host
    return re.sub(r"[?#].*$", "", re.sub(r"^https?://(dl|www)\.dropbox\.com/", "dropbox:", address))


def _other_names(entry: PublishedWeights) -> set[str]:
    names = {entry.file, entry.name.rpartition("/")[2]}
    if entry.architecture != BACKBONE:  # many detectors start from one backbone
        names |= {entry.config, os.path.basename(entry.config)}
    return names | {_ENDING.sub("", name) for name in names}
