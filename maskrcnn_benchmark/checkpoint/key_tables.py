"""Tables of names that are read in both directions.

A row is a pair of templates, (theirs, ours). `{s}` stands for a whole number, `{s+2}` for that number plus two:

    ("stages.{s}.blocks.{b}.attn.fc.", "stage{s+2}.OSA{s+2}_{b+1}.ese.fc.")

turns stages.0.blocks.1.attn.fc.weight into stage2.OSA2_2.ese.fc.weight, and that back. A template is looked for at the
start of a key and behind each of its dots (one that begins with "/" anywhere, one with "^" at the start only); what
stands before and behind it stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

Row = tuple[str, str]

_FIELD = re.compile(r"\{(\w)([+-]\d+)?\}")


@cache
def _compiled(template: str) -> tuple[re.Pattern, dict[str, int]]:
    """The pattern that finds the template, and by how much each of its numbers is shifted."""
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
    """The key with what the first fitting row finds in it replaced; the key itself where no row fits."""
    for theirs, ours in rows:
        source, target = (theirs, ours) if to_ours else (ours, theirs)
        pattern, shifts = _compiled(source)
        found = pattern.search(key)
        if found:
            numbers = {name: int(found[name]) - shift for name, shift in shifts.items()}
            return key[: found.start()] + _fill(target, numbers) + key[found.end() :]
    return key
