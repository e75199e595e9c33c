"""What an unknown name in a config says."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownNameError(KeyError):
    """A KeyError that prints its message as it is; KeyError itself shows it quoted, with its line ends escaped."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


# Characters of an error: a page.
MAX_MESSAGE = 2000
# Of a name that is looked up; comparing takes the product of the lengths.
MAX_NAME = 200


def shorten(message: str, most: int = MAX_MESSAGE) -> str:
    """Cut the middle out of a message of more than `most` characters."""
    if len(message) <= most:
        return message
    half = most // 2 - 5
    return f"{message[:half]} [...] {message[-half:]}"


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names most like `name`, best first: whole names compared, and dotted names by their last part."""
    known, name = list(known), name[:MAX_NAME]
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.6)
    leaf = name.rpartition(".")[2].lower()
    close += [k for k in known if k.rpartition(".")[2].lower() == leaf and k not in close]
    return (close or difflib.get_close_matches(name, known, n=1, cutoff=0.0))[:count]
