"""A dictionary of builders that is filled by decorators."""

from __future__ import annotations

from difflib import get_close_matches


class Registry(dict):
    """Names to builders (or classes).

    Args:
        *args, **kwargs: first entries, as for `dict`.

    A name that is looked up and not there raises KeyError with the nearest known names, or with what `refuse` said.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._refused: dict[str, str] = {}

    def refuse(self, module_name: str, reason: str) -> None:
        """Makes `reason` the error for a name that people will look up although it is not there."""
        self._refused[module_name] = reason

    def register(self, module_name: str, module=None):
        """Stores `module`, or, without one, returns a decorator that stores what it decorates.

        The decorator returns its object unchanged, so that several can be stacked to give several names.

        Raises:
            AssertionError: the name is taken (the forks' exception).
        """
        if module is None:
            return lambda decorated: self._store(module_name, decorated)
        return self._store(module_name, module)

    def _store(self, name, module):
        if name in self:
            raise AssertionError(f"{name!r} is registered already, as {self[name]!r}; choose another name")
        self[name] = module
        return module

    def __missing__(self, name):
        if name in self._refused:
            raise KeyError(f"{name!r} is not supported: {self._refused[name]}")
        near = get_close_matches(str(name), self, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise KeyError(f"{name!r} is not registered; {hint}known: {', '.join(sorted(self)) or 'none'}")
