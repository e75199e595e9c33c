"""A progress bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys

from tqdm import tqdm


class ProgressBar:
    """A bar on stderr if that is a terminal and this process may draw one; otherwise every call does nothing.

    Args:
        total: steps of the whole work; `initial` of them are done already.
    """

    def __init__(self, total: int, initial: int = 0, enabled: bool = True, unit: str = "it"):
        disable = not (enabled and sys.stderr.isatty())
        self._bar = tqdm(total=total, initial=initial, disable=disable, unit=unit, dynamic_ncols=True, leave=False)

    def advance(self, steps: int = 1, **values: str) -> None:
        if values:
            self._bar.set_postfix(values, refresh=False)
        self._bar.update(steps)

    @contextlib.contextmanager
    def hidden(self):
        """Takes the bar off the terminal while something else is printed."""
        self._bar.clear()
        try:
            yield
        finally:
            self._bar.refresh()

    def close(self) -> None:
        self._bar.close()
