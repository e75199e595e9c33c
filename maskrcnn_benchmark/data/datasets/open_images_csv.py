"""Read Open Images' csv files, and its hierarchy of classes."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence

from maskrcnn_benchmark.utils.text_file import did_you_mean, open_regular, read_text

# First cells of class description files with a header.
HEADERS = ("LabelName", "Label", "MID")


def csv_rows(path: str, key: str, columns: Sequence[str], optional: str = "", hint: str = "") -> Iterator[tuple]:
    """Yield (line number, *values of `columns`, value of `optional` or None) of each row of a csv. Values are text.

    Args:
        path: the csv, in UTF-8, or in UTF-16 with a byte order mark.
        key: config key that names the csv, for errors.
        columns: names of required columns.
        optional: name of a column that may be missing.
        hint: end of the error about missing columns.

    Raises:
        FileNotFoundError: no such file.
        ValueError: columns are missing; they are named.
    """
    try:
        with open_regular(path) as file:
            is_marked = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    except FileNotFoundError:
        raise FileNotFoundError(f"annotation file {path} ({key}) does not exist.{did_you_mean(path)}") from None
    with open(path, encoding="utf-16" if is_marked else "utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = [cell.strip() for cell in next(reader, [])]
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise ValueError(
                f"annotation file {path} lacks the columns {', '.join(lacking)} ({key}); its first line is "
                f"{','.join(header)!r:.200}. Expected a csv with {', '.join(columns)}{hint}"
            )
        places = [header.index(name) for name in columns]
        other = header.index(optional) if optional in header else None
        last = max(places)
        for row in reader:
            if not row:
                continue
            if len(row) <= last:
                row += [""] * (last + 1 - len(row))
            value = row[other] if other is not None and other < len(row) else None
            yield (reader.line_num, *(row[place] for place in places), value)


def read_classes(path: str) -> dict[str, str]:
    """Return the names of the classes by LabelName, in the file's order.

    Raises:
        ValueError: the file does not have two columns.
    """
    rows = list(csv.reader(read_text(path).splitlines()))
    rows = [[cell.strip() for cell in row] for row in rows if any(row)]
    if rows and rows[0][0] in HEADERS:
        rows = rows[1:]
    if not rows or any(len(row) < 2 for row in rows):
        raise ValueError(f"{path} (CLASSES): expected lines LabelName,name, as in /m/011k07,Tortoise")
    return {row[0]: ",".join(row[1:]) for row in rows}


def read_ancestors(path: str) -> dict[str, set[str]]:
    """Return the ancestors of each class in a hierarchy such as bbox_labels_600_hierarchy.json, all by LabelName.

    The root ("Entity") is not a class and is left out. "Part" entries are not followed: a part of a class is not a kind
    of it.

    Raises:
        ValueError: the file is not such a hierarchy.
    """
    try:
        root = json.loads(read_text(path))
        ancestors: dict[str, set[str]] = defaultdict(set)
        nodes = [(child, frozenset()) for child in root["Subcategory"]]
        while nodes:
            node, above = nodes.pop()
            name = node["LabelName"]
            ancestors[name] |= above - {name}
            nodes += [(child, above | {name}) for child in node.get("Subcategory", ())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} (HIERARCHY): expected a tree of objects with LabelName and Subcategory, as in "
            f"bbox_labels_600_hierarchy.json ({type(error).__name__}: {error})"
        ) from None
    return dict(ancestors)
