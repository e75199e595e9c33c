"""Limit the time and memory that reading a pickle may take.

A pickle is a small program. With its memo, 127 bytes can build a tuple whose repr or hash never finishes, and five
bytes can copy a string of megabytes. `pickle_scan` runs the program with the placeholders of this file: tuples, lists,
short strings and numbers are kept, everything else becomes a `Blob` or a `Call`. `Budget` raises for

- nesting deeper than DEEPEST, and objects that contain themselves,
- more than MOST_OPERATIONS operations, in a large file one per BYTES_PER_OPERATION bytes,
- objects that would be much larger than the file without shared references,
- dict keys and set elements that are slow to hash or chosen to collide,
- calls that allocate memory from a number alone, such as bytearray(2**31).
"""

from __future__ import annotations

import pickle
from typing import NoReturn

DEEPEST = 100
# Ten times the operations of a training checkpoint with ten thousand parameters; takes about three seconds.
MOST_OPERATIONS = 3_000_000
# For larger files. Files of objects, such as predictions.pth of many images, have one operation per two bytes.
BYTES_PER_OPERATION = 4
_MOST_NODES = 4_000_000
_FREE_NODES = 300_000  # allowed for any file, however small
_NODES_PER_BYTE = 4
_FREE_BYTES = 1 << 20
_COPIES_OF_BYTES = 8
LONGEST_KEPT = 200  # longer strings are not needed by the checks
LONGEST_NUMBER = 512  # bytes of an integer; larger ones are slow to print
_MOST_TUPLE_KEYS = 10_000
_HASH_MODULUS = (1 << 61) - 1  # an integer's hash is its remainder, so multiples collide
# Called with a number or a size, these allocate memory without reading anything from the file.
_ALLOCATORS = ("bytearray", "bytes", "Tensor", "Storage")
_OF_PAIRS = ("dict", "OrderedDict", "defaultdict")
_OF_KEYS = ("Counter", "set", "frozenset")


class Blob:
    """Placeholder for a string or bytes too long to keep."""

    __slots__ = ("size",)

    def __init__(self, size: int):
        self.size = size


class Global:
    """Placeholder for a class or function, with its name."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Call(list):
    """Placeholder for the result of a call: its arguments, then the states set by BUILD."""

    __slots__ = ("name",)

    def __init__(self, name: str, items=()):
        super().__init__(items)
        self.name = name


class Dict(list):
    """Placeholder for a dict: keys and values alternate."""

    __slots__ = ()


class Set(list):
    """Placeholder for a set: its elements."""

    __slots__ = ()


_CONTAINERS = (tuple, list)  # and the placeholders above, which are lists


def refuse(why: str) -> NoReturn:
    raise pickle.UnpicklingError(f"{why}: refused")


class Budget:
    """Budget of nodes, bytes and operations for a pickle. Methods raise pickle.UnpicklingError if it is exceeded.

    Args:
        length: bytes from the start of the pickle to the end of its file.
        bytes_per_operation: see `pickle_scan.scan_pickle`.
    """

    def __init__(self, length: int, bytes_per_operation: int):
        self.most_operations = max(MOST_OPERATIONS, length // bytes_per_operation)
        self.nodes_left = min(_FREE_NODES + _NODES_PER_BYTE * length, max(_MOST_NODES, length))
        self.bytes_left = _FREE_BYTES + _COPIES_OF_BYTES * length
        self.tuple_keys = 0

    def spend(self, *values) -> None:
        """Subtract the nodes and bytes of `values` from the budget, counting shared objects each time they occur."""
        pending = [(value, 0) for value in values]
        while pending:
            value, depth = pending.pop()
            self.nodes_left -= 1
            if self.nodes_left < 0:
                refuse("objects that contain the same object very many times, which would take very long to read")
            if isinstance(value, _CONTAINERS):
                if depth > DEEPEST:
                    refuse(f"objects nested more than {DEEPEST} deep")
                if len(value) > self.nodes_left:
                    self.nodes_left = 0
                    continue
                pending.extend((inner, depth + 1) for inner in value)
            elif isinstance(value, (Blob, str)):
                self.bytes_left -= value.size if isinstance(value, Blob) else len(value)
                if self.bytes_left < 0:
                    refuse("the same bytes copied very many times")

    def check_keys(self, keys) -> None:
        """Check that keys and elements can be hashed, are not slow to hash, and are not chosen to collide."""
        for key in keys:
            if isinstance(key, tuple):
                self.tuple_keys += 1
                if self.tuple_keys > _MOST_TUPLE_KEYS:
                    refuse(f"more than {_MOST_TUPLE_KEYS} dict keys that are tuples")
                self.spend(key)
            elif isinstance(key, list):
                if not isinstance(key, (Call, Set)):
                    refuse("a dict key that is a list or dict")
                self.spend(key)
            elif isinstance(key, int) and abs(key) >= _HASH_MODULUS:
                refuse(f"a dict key that is an integer of {key.bit_length()} bits")

    def spend_call(self, name: str, arguments: tuple) -> None:
        """Subtract the arguments of a call from the budget, and check the keys of a dict or set that it creates."""
        if name.endswith(_ALLOCATORS) and arguments:
            first = arguments[0]
            if isinstance(first, (int, tuple)) or (isinstance(first, Call) and first.name.endswith("Size")):
                refuse(f"a call of {name} with a size instead of content")
        self.spend(arguments)
        kind = name.rpartition(".")[2]
        for argument in arguments if kind in _OF_PAIRS + _OF_KEYS else ():
            if isinstance(argument, Dict):
                self.check_keys(argument[::2])
            elif isinstance(argument, _CONTAINERS):
                pairs = (item[0] for item in argument if isinstance(item, _CONTAINERS) and item)
                self.check_keys(argument if kind in _OF_KEYS else pairs)
