"""Expand shell braces in file names: {000..127} and {a,b}."""

from __future__ import annotations

import itertools
import re

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")

# More names than this indicate a mistake in a range.
MOST = 1_000_000


def expand_braces(text: str) -> list[str]:
    """Return all names that a pattern expands to, in order. Numbers are padded to the width of the first one.

    Raises:
        ValueError: a range is descending, braces do not match, or there are more than MOST names.
    """
    choices, count, end = [], 1, 0
    for match in _BRACES.finditer(text):
        choices.append([text[end : match.start()]])
        choices.append(_choices(match[1], text))
        count *= len(choices[-1])
        end = match.end()
    choices.append([text[end:]])
    if any("{" in part or "}" in part for (part,) in choices[::2]):
        raise ValueError(f"the braces of {text} do not match")
    if count > MOST:
        raise ValueError(f"{text} stands for {count:,} names; at most {MOST:,} are possible")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inside: str, text: str) -> list[str]:
    match = _RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",")
    first, last = int(match[1]), int(match[2])
    if last < first or last - first >= MOST:
        raise ValueError(f"{{{inside}}} in {text} is no range; write {{FIRST..LAST}} with at most {MOST:,} numbers")
    return [f"{number:0{len(match[1])}d}" for number in range(first, last + 1)]
