"""Exception for models that cannot be exported."""

from __future__ import annotations


class NotExportable(ValueError):
    """A part of a model cannot be exported. The message names the part, the reason and the remedy."""
