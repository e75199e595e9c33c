"""Show a progress bar on terminals only."""

from __future__ import annotations

import contextlib
import sys

from tqdm import tqdm


class ProgressBar:
    """Progress bar on stderr. Every call is a no-op if stderr is not a terminal or the bar is disabled.

    Args:
        total: steps of the whole task.
        initial: steps that are already done.
        enabled: False disables the bar, for example on ranks other than 0.
        unit: name of a step.
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
        """Hide the bar while something else is printed."""
        self._bar.clear()
        try:
            yield
        finally:
            self._bar.refresh()

    def close(self) -> None:
        self._bar.close()
