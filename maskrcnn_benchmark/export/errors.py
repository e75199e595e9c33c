"""The error of models that cannot leave Python."""

from __future__ import annotations


class NotExportable(ValueError):
    """A part of a model has no form outside of PyTorch; the message names it, says why, and what to do."""
