"""Rename keys by tables that work in both directions.

A row is a pair of templates, (theirs, ours). `{s}` matches an integer, `{s+2}` is that number plus two:

    ("stages.{s}.blocks.{b}.attn.fc.", "stage{s+2}.OSA{s+2}_{b+1}.ese.fc.")

renames stages.0.blocks.1.attn.fc.weight to stage2.OSA2_2.ese.fc.weight, and back. A template matches at the start of a
key or after a dot. A template that starts with "/" matches anywhere, one that starts with "^" only at the start of a
key. The rest of the key is not changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

Row = tuple[str, str]

_FIELD = re.compile(r"\{(\w)([+-]\d+)?\}")


@cache
def _compiled(template: str) -> tuple[re.Pattern, dict[str, int]]:
    """Compile a template to a pattern, and return the shift of each of its numbers."""
    start = {"/": "", "^": "^"}.get(template[0], r"(?<![^.])")
    template = template.removeprefix("^")
    pattern, shifts, end = start, {}, 0
    for field in _FIELD.finditer(template):
        name, shift = field[1], int(field[2] or 0)
        pattern += re.escape(template[end : field.start()])
        pattern += f"(?P={name})" if name in shifts else rf"(?P<{name}>\d+)"
        if shifts.setdefault(name, shift) != shift:
            raise ValueError(f"the template {template!r} has {{{name}}} with two shifts")
        end = field.end()
    return re.compile(pattern + re.escape(template[end:])), shifts


def _fill(template: str, numbers: dict[str, int]) -> str:
    return _FIELD.sub(lambda field: str(numbers[field[1]] + int(field[2] or 0)), template.removeprefix("^"))


def rename(key: str, rows: Iterable[Row], *, to_ours: bool = True) -> str:
    """Rename a key by the first matching row; a key that no row matches is returned unchanged."""
    for theirs, ours in rows:
        source, target = (theirs, ours) if to_ours else (ours, theirs)
        pattern, shifts = _compiled(source)
        found = pattern.search(key)
        if found:
            numbers = {name: int(found[name]) - shift for name, shift in shifts.items()}
            return key[: found.start()] + _fill(target, numbers) + key[found.end() :]
    return key
