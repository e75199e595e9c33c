"""A dictionary of builders, filled by decorators."""

from __future__ import annotations

from difflib import get_close_matches


class Registry(dict):
    """Names to builders (or classes).

    Args:
        *args, **kwargs: first entries, as for `dict`.

    A missing name raises KeyError with similar names, or with the reason given to `refuse`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._refused: dict[str, str] = {}

    def refuse(self, module_name: str, reason: str) -> None:
        """Set `reason` as the error for a name that users will look up although it is not supported."""
        self._refused[module_name] = reason

    def register(self, module_name: str, module=None):
        """Store `module`, or, without one, return a decorator that stores what it decorates.

        The decorator returns its object unchanged, so that several can be stacked to register several names.

        Raises:
            AssertionError: the name is already registered (the forks' exception).
        """
        if module is None:
            return lambda decorated: self._store(module_name, decorated)
        return self._store(module_name, module)

    def _store(self, name, module):
        if name in self:
            raise AssertionError(f"{name!r} is already registered, as {self[name]!r}; choose another name")
        self[name] = module
        return module

    def __missing__(self, name):
        if name in self._refused:
            raise KeyError(f"{name!r} is not supported: {self._refused[name]}")
        near = get_close_matches(str(name), self, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise KeyError(f"{name!r} is not registered; {hint}known: {', '.join(sorted(self)) or 'none'}")
