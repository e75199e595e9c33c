"""Keep many values of a json in one array if they are numbers of one type."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from maskrcnn_benchmark.data.datasets.string_table import StringTable

# Values that become Python objects at a time.
BATCH = 4096


class ValueColumn(Sequence):
    """Read-only list of values, such as ids. Elements are Python objects. It equals a list of the same values.

    If all values are ints, or all are floats, they are stored in an array of 8 bytes per value, whose memory processes
    share. Otherwise they are stored in a list, or in a StringTable if they come from a file.

    Args:
        values: of any types.

    Attributes:
        array: (len(self),) int64 or float64, or None.
    """

    def __init__(self, values: Iterable):
        if not isinstance(values, (np.ndarray, _Texts)):
            values = _pack(list(values))
        self._values = values

    @classmethod
    def joined(cls, parts: Sequence[ValueColumn]) -> ValueColumn:
        """Concatenate columns."""
        arrays = [part.array for part in parts if len(part)]
        if arrays and len({None if array is None else array.dtype for array in arrays}) == 1 and arrays[0] is not None:
            return cls(np.concatenate(arrays))
        return cls(value for part in parts for value in part)

    @property
    def array(self) -> np.ndarray | None:
        return self._values if isinstance(self._values, np.ndarray) else None

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index):
        found = self._values[index]
        return found.tolist() if isinstance(self._values, np.ndarray) else found

    def __iter__(self) -> Iterator:
        if self.array is None:
            return iter(self._values)
        return (value for first in range(0, len(self), BATCH) for value in self[first : first + BATCH])

    def __eq__(self, other) -> bool:
        if not isinstance(other, (list, tuple, ValueColumn)):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} values)"

    def take(self, indices: np.ndarray) -> ValueColumn:
        """Return the values at some indices, in their order."""
        if self.array is not None:
            return ValueColumn(self.array[indices])
        return ValueColumn(self._values[i] for i in indices.tolist())

    def where(self, chosen: np.ndarray) -> list:
        """Return the values for which `chosen`, bool of this length, is true."""
        return list(self.take(np.flatnonzero(chosen)))

    def is_unique(self) -> bool:
        """Return whether all values differ; False if some are lists or objects."""
        if self.array is not None:
            ordered = np.sort(self.array)
            return not (ordered[1:] == ordered[:-1]).any()
        try:
            return len(set(self)) == len(self)
        except TypeError:
            return False

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the values as arrays for a file."""
        if self.array is not None:
            return {"numbers": self.array}
        return StringTable(map(json.dumps, self._values)).to_arrays()

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ValueColumn:
        """Make a column from the result of `to_arrays`."""
        return cls(arrays["numbers"] if "numbers" in arrays else _Texts(StringTable.from_arrays(arrays)))


class _Texts(Sequence):
    """Values written as JSON in a StringTable."""

    def __init__(self, texts: StringTable):
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index):
        found = range(len(self))[index]
        return [self[i] for i in found] if isinstance(index, slice) else json.loads(self._texts[found])


def _pack(values: list) -> np.ndarray | list:
    types = set(map(type, values))
    if types not in ({int}, {float}):
        return values
    try:
        return np.array(values, dtype=np.int64 if types == {int} else np.float64)
    except OverflowError:
        return values
