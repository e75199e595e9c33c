"""Errors for unknown names in a config, with suggestions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownNameError(KeyError):
    """KeyError that prints its message unchanged; KeyError itself quotes it and escapes line breaks."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


# Maximum characters of an error: about a page.
MAX_MESSAGE = 2000
# Maximum characters of a name to look up; the time of a comparison grows with the product of the lengths.
MAX_NAME = 200


def shorten(message: str, most: int = MAX_MESSAGE) -> str:
    """Cut the middle out of a message of more than `most` characters."""
    if len(message) <= most:
        return message
    half = most // 2 - 5
    return f"{message[:half]} [...] {message[-half:]}"


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the known names most similar to `name`, best first. Dotted names also match by their last part."""
    known, name = list(known), name[:MAX_NAME]
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.6)
    leaf = name.rpartition(".")[2].lower()
    close += [k for k in known if k.rpartition(".")[2].lower() == leaf and k not in close]
    return (close or difflib.get_close_matches(name, known, n=1, cutoff=0.0))[:count]
