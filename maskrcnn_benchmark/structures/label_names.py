"""Class names and dataset ids of the labels that a model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LabelNames:
    """Names and dataset ids of a model's labels.

    Args:
        class_names: K names; label k, 1..K, is class_names[k - 1].
        category_ids: K ids, as the annotation files of the training data have them; None is 1..K.
        semantic_names: names of the semantic classes 0, 1, ...; empty where the model predicts none.
        semantic_ids: their ids in the training data; None is 0, 1, ...

    Raises:
        ValueError: there is not one id for each name.
    """

    class_names: Sequence[str] = ()
    category_ids: Sequence | None = None
    semantic_names: Sequence[str] = ()
    semantic_ids: Sequence | None = None

    def __post_init__(self):
        for names, ids, start in (
            ("class_names", "category_ids", 1),
            ("semantic_names", "semantic_ids", 0),
        ):
            named = tuple(str(name) for name in getattr(self, names))
            given = getattr(self, ids)
            numbers = tuple(range(start, start + len(named))) if given is None else tuple(given)
            if len(numbers) != len(named):
                raise ValueError(f"{len(named)} {names} and {len(numbers)} {ids} were given; give one id for each name")
            object.__setattr__(self, names, named)
            object.__setattr__(self, ids, numbers)
