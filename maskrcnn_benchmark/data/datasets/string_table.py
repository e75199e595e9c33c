"""Store many short strings in one block of memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class StringTable:
    """Read-only list of strings in one byte array.

    Reading an element of a Python list writes its reference count, which copies the list's memory into every worker
    process of a loader. The memory of an array stays shared.
    """

    def __init__(self, texts: Iterable[str]):
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0] + [len(text) for text in encoded])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        begin, end = self._ends[index], self._ends[index + 1]
        return self._bytes[begin:end].tobytes().decode("utf-8", "surrogatepass")

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the strings as arrays for a file."""
        return {"bytes": self._bytes, "ends": self._ends}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> StringTable:
        """Make a table from the result of `to_arrays`."""
        table = cls.__new__(cls)
        table._bytes, table._ends = arrays["bytes"], arrays["ends"]
        return table
