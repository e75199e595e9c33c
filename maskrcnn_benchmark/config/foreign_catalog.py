"""Convert a user's paths_catalog.py to inline blocks, without running it."""

from __future__ import annotations

import ast
import os

from .paths_catalog import EXAMPLE, DatasetCatalog


def inline_equivalent(path: str, entries: dict[str, tuple]) -> str:
    """Return YAML text of an equivalent DATASETS section.

    Args:
        path: the Python file; if it cannot be read, an example is returned.
        entries: {"DATASETS.TRAIN": names and blocks, "DATASETS.TEST": ...} of the config.
    """
    data_dir, table = _read(path)
    lines = ["DATASETS:"]
    for key in entries:
        lines.append(f"  {key.removeprefix('DATASETS.')}:")
        lines += [f"    - {_entry(entry, data_dir, table)}" for entry in entries[key] or [EXAMPLE]]
    return "\n".join(lines)


def _entry(entry, data_dir: str, table: dict[str, dict]) -> str:
    if isinstance(entry, dict):
        return "{" + ", ".join(f"{key}: {value}" for key, value in entry.items()) + "}"
    attrs = table.get(entry)
    if attrs is None:
        known = entry in DatasetCatalog.DATASETS or entry == EXAMPLE
        return entry if known else f"{EXAMPLE}  # {entry}"
    if not {"img_dir", "ann_file"} <= attrs.keys():
        own = "in the built-in catalog" if entry in DatasetCatalog.DATASETS else "not in COCO format"
        return f"{entry}  # {own}; in your catalog it is {attrs}"
    images, annotations = (os.path.join(data_dir, str(attrs[key])) for key in ("img_dir", "ann_file"))
    return f"{{NAME: {entry}, FORMAT: coco, IMAGES: {images}, ANNOTATIONS: {annotations}}}"


def _read(path: str) -> tuple[str, dict[str, dict]]:
    """Return DATA_DIR and the literal entries of DATASETS of the class DatasetCatalog."""
    data_dir, table = DatasetCatalog.DATA_DIR, {}
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            module = ast.parse(file.read())
    except (OSError, ValueError, SyntaxError, MemoryError, RecursionError):
        return data_dir, table
    classes = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "DatasetCatalog"]
    for node in (statement for c in classes for statement in c.body if isinstance(statement, ast.Assign)):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if "DATA_DIR" in names:
            data_dir = _literal(node.value, str) or data_dir
        if "DATASETS" in names and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                name, attrs = _literal(key, str), _literal(value, dict)
                if name and attrs:
                    table[name] = attrs
    return data_dir, table


def _literal(node: ast.expr | None, kind: type):
    try:
        value = ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, kind) else None
