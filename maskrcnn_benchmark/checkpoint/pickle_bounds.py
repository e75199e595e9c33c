"""Bounds for what reading a pickle may cost, checked before anything of it is built.

A pickle is a small program. With a memo, 127 bytes make a tuple whose repr or hash takes longer than the universe
lasts; five bytes copy a string of megabytes. `scan_pickle` runs the program on stand-ins: tuples, lists, short texts
and numbers stay what they are, everything else becomes a `_Blob` or a `_Call`. It refuses

- nesting deeper than DEEPEST, and objects that contain themselves,
- more than MOST_OPERATIONS operations, in a large file one for every BYTES_PER_OPERATION bytes,
- objects that written out in full would be much larger than the file,
- dict keys and set elements that cost much to hash, or that are chosen to collide,
- lengths and memo numbers beyond the file's size,
- calls that would fill memory from a number alone, such as bytearray(2**31).
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass

DEEPEST = 100
# Ten times those of a training checkpoint with ten thousand parameters: about three seconds.
MOST_OPERATIONS = 3_000_000
# Of a larger file. Files of objects, such as predictions.pth of many images, have one for every two bytes.
BYTES_PER_OPERATION = 4
_MOST_NODES = 4_000_000
_FREE_NODES = 300_000  # what any file may cost, however small
_NODES_PER_BYTE = 4
_FREE_BYTES = 1 << 20
_COPIES_OF_BYTES = 8
_LONGEST_KEPT = 200  # texts above are of no interest to the checks
_LONGEST_NUMBER = 512  # bytes of an integer: larger ones make decimal text slow
_MOST_TUPLE_KEYS = 10_000
_HASH_MODULUS = (1 << 61) - 1  # integers hash to their remainder: multiples of it all collide
# Called with a number or a size these allocate without reading anything from the file.
_ALLOCATORS = ("bytearray", "bytes", "Tensor", "Storage")
_OF_PAIRS = ("dict", "OrderedDict", "defaultdict")
_OF_KEYS = ("Counter", "set", "frozenset")


class _Blob:
    """Stands for a text or bytes too long to keep."""

    __slots__ = ("size",)

    def __init__(self, size: int):
        self.size = size


class _Global:
    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class _Call(list):
    """Stands for an object that a call makes: its arguments, then the states that BUILD gives it."""

    __slots__ = ("name",)

    def __init__(self, name: str, items=()):
        super().__init__(items)
        self.name = name


class _Dict(list):
    """Stands for a dict: keys and values in turn."""

    __slots__ = ()


class _Set(list):
    __slots__ = ()


_CONTAINERS = (tuple, list)  # and the stand-ins above, which are lists


@dataclass
class Scan:
    """What a pickle would do.

    Attributes:
        end: offset behind its STOP.
        value: stand-in of the object.
        persistent_ids: stand-ins of the references to outside.
    """

    end: int
    value: object
    persistent_ids: list


def _refuse(why: str):
    raise pickle.UnpicklingError(f"{why}: refused")


def _damaged(why: str):
    raise EOFError(why)


class _Scanner:
    def __init__(self, data, start: int, bytes_per_operation: int):
        self.data, self.at, self.size = data, start, len(data)
        self.stack: list = []
        self.marks: list[list] = []
        self.memo: dict[int, object] = {}
        self.persistent_ids: list = []
        length = self.size - start
        self.most_operations = max(MOST_OPERATIONS, length // bytes_per_operation)
        self.nodes_left = min(_FREE_NODES + _NODES_PER_BYTE * length, max(_MOST_NODES, length))
        self.bytes_left = _FREE_BYTES + _COPIES_OF_BYTES * length
        self.tuple_keys = 0

    # reading

    def take(self, count: int):
        end = self.at + count
        if count < 0 or end > self.size:
            _damaged("the pickle ends in the middle of an entry")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            _damaged("the pickle ends in the middle of a line")
        taken = self.data[self.at : end]
        self.at = end + 1
        return taken

    def blob(self, size: int) -> _Blob:
        if not 0 <= size <= self.size - self.at:
            _damaged("the pickle ends in the middle of a text")
        self.at += size
        return _Blob(size)

    def text(self, size: int):
        return self.blob(size) if size > _LONGEST_KEPT else bytes(self.take(size)).decode("latin1")

    def text_line(self):
        line = self.line()
        return _Blob(len(line)) if len(line) > _LONGEST_KEPT else bytes(line).decode("latin1")

    def long(self, size: int) -> int:
        if not 0 <= size <= _LONGEST_NUMBER:
            _refuse(f"an integer of {size} bytes")
        return int.from_bytes(self.take(size), "little", signed=True)

    def decimal(self) -> int:
        line = self.line().strip().rstrip(b"L")
        if len(line) > 2 * _LONGEST_NUMBER:
            _refuse(f"an integer of {len(line)} digits")
        return int(line or b"0")

    # the stack

    def pop(self):
        if not self.stack:
            _damaged("the pickle takes from an empty stack")
        return self.stack.pop()

    def top(self, kind=object):
        if not self.stack:
            _damaged("the pickle looks at an empty stack")
        if not isinstance(self.stack[-1], kind):
            _damaged("the pickle adds entries to something that takes none")
        return self.stack[-1]

    def pop_mark(self) -> list:
        if not self.marks:
            _damaged("the pickle lacks a mark")
        items, self.stack = self.stack, self.marks.pop()
        return items

    # costs

    def spend(self, *values) -> None:
        """Take what `values` would cost written out in full from the budget; and the bytes in them, as if copied."""
        pending = [(value, 0) for value in values]
        while pending:
            value, depth = pending.pop()
            self.nodes_left -= 1
            if self.nodes_left < 0:
                _refuse("objects that contain the same object many times over, which would take very long to read")
            if isinstance(value, _CONTAINERS):
                if depth > DEEPEST:
                    _refuse(f"objects nested more than {DEEPEST} deep")
                if len(value) > self.nodes_left:
                    self.nodes_left = 0
                    continue
                pending.extend((inner, depth + 1) for inner in value)
            elif isinstance(value, (_Blob, str)):
                self.bytes_left -= value.size if isinstance(value, _Blob) else len(value)
                if self.bytes_left < 0:
                    _refuse("the same bytes copied many times over")

    def check_keys(self, keys) -> None:
        for key in keys:
            if isinstance(key, tuple):
                self.tuple_keys += 1
                if self.tuple_keys > _MOST_TUPLE_KEYS:
                    _refuse(f"more than {_MOST_TUPLE_KEYS} dict keys that are tuples")
                self.spend(key)
            elif isinstance(key, list):
                if not isinstance(key, (_Call, _Set)):
                    _refuse("a dict key that is a list or dict")
                self.spend(key)
            elif isinstance(key, int) and abs(key) >= _HASH_MODULUS:
                _refuse(f"a dict key that is an integer of {key.bit_length()} bits")

    def call(self, function, arguments) -> _Call:
        name = function.name if isinstance(function, _Global) else "a call's result"
        if not isinstance(arguments, tuple):
            _damaged(f"a call of {name} without a tuple of arguments")
        if name.endswith(_ALLOCATORS) and arguments:
            first = arguments[0]
            if isinstance(first, (int, tuple)) or (isinstance(first, _Call) and first.name.endswith("Size")):
                _refuse(f"a call of {name} with a size instead of content")
        self.spend(arguments)
        kind = name.rpartition(".")[2]
        for argument in arguments if kind in _OF_PAIRS + _OF_KEYS else ():
            if isinstance(argument, _Dict):
                self.check_keys(argument[::2])
            elif isinstance(argument, _CONTAINERS):
                pairs = (item[0] for item in argument if isinstance(item, _CONTAINERS) and item)
                self.check_keys(argument if kind in _OF_KEYS else pairs)
        return _Call(name, arguments)

    def build(self) -> None:
        state = self.pop()
        self.spend(state)
        target = self.top()
        if isinstance(target, list):
            target.append(state)

    # the program

    def run(self) -> Scan:
        actions = _ACTIONS
        for _ in range(self.most_operations):
            if self.at >= self.size:
                _damaged("the pickle ends without its STOP")
            code = self.data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                value = self.pop()
                self.spend(value)
                return Scan(self.at, value, self.persistent_ids)
            action = actions.get(code)
            if action is None:
                _refuse(f"the operation {bytes([code])!r}, which no checkpoint needs")
            action(self)
        _refuse(f"more than {self.most_operations:,} operations")

    def push(self, value) -> None:
        self.stack.append(value)

    def remember(self, index: int) -> None:
        if not 0 <= index <= self.size:
            _refuse(f"a memo entry numbered {index}")
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            _damaged(f"the memo has no entry {index}")
        self.push(self.memo[index])

    def skip_frame(self) -> None:
        if self.number("<Q") > self.size - self.at:
            _damaged("the pickle ends in the middle of a frame")

    def set_items(self, pairs: list) -> None:
        if len(pairs) % 2:
            _damaged("a dict key without a value")
        target = self.top((_Dict, _Call))
        self.check_keys(pairs[::2])
        target.extend(pairs)

    def new_dict(self) -> None:
        pairs = self.pop_mark()
        self.push(_Dict())
        self.set_items(pairs)

    def add_items(self, items: list) -> None:
        self.check_keys(items)
        self.top(_Set).extend(items)

    def new_frozenset(self) -> None:
        items = self.pop_mark()
        self.check_keys(items)
        self.push(_Set(items))

    def inst(self) -> None:
        module, name = bytes(self.line()).decode("latin1"), bytes(self.line()).decode("latin1")
        self.push(self.call(_Global(f"{module}.{name}"), tuple(self.pop_mark())))

    def obj(self) -> None:
        items = self.pop_mark()
        if not items:
            _damaged("an object without a class")
        self.push(self.call(items[0], tuple(items[1:])))

    def global_(self) -> None:
        module, name = bytes(self.line()).decode("latin1"), bytes(self.line()).decode("latin1")
        self.push(_Global(f"{module}.{name}"))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(_Global(f"{module}.{name}" if isinstance(name, str) and isinstance(module, str) else "?"))

    def reduce(self) -> None:
        arguments = self.pop()
        self.push(self.call(self.pop(), arguments))

    def new_object(self, with_keywords: bool = False) -> None:
        keywords = self.pop() if with_keywords else _Dict()
        arguments = self.pop()
        made = self.call(self.pop(), arguments)
        self.spend(keywords)
        made.append(keywords)
        self.push(made)

    def persistent(self, pid) -> None:
        self.spend(pid)
        self.persistent_ids.append(pid)
        self.push(_Call("persistent id", (pid,)))

    def new_mark(self) -> None:
        self.marks.append(self.stack)
        if len(self.marks) > 10 * DEEPEST:
            _refuse("marks nested too deep")
        self.stack = []

    def pop_or_mark(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def new_tuple(self, count: int | None = None) -> None:
        if count is None:
            items = self.pop_mark()
        else:
            items = [self.pop() for _ in range(count)][::-1]
        self.push(tuple(items))

    def append_items(self, items: list) -> None:
        target = self.top(list)
        if isinstance(target, (_Dict, _Set)):
            _damaged("the pickle appends to a dict or set")
        target.extend(items)


_s = _Scanner
_TABLE = {
    "PROTO": lambda m: m.take(1),
    "FRAME": _s.skip_frame,
    "MARK": _s.new_mark,
    "POP": _s.pop_or_mark,
    "POP_MARK": _s.pop_mark,
    "DUP": lambda m: m.push(m.top()),
    "NONE": lambda m: m.push(None),
    "NEWTRUE": lambda m: m.push(True),
    "NEWFALSE": lambda m: m.push(False),
    "INT": lambda m: m.push(m.decimal()),
    "LONG": lambda m: m.push(m.decimal()),
    "BININT": lambda m: m.push(m.number("<i")),
    "BININT1": lambda m: m.push(m.number("<B")),
    "BININT2": lambda m: m.push(m.number("<H")),
    "LONG1": lambda m: m.push(m.long(m.number("<B"))),
    "LONG4": lambda m: m.push(m.long(m.number("<i"))),
    "FLOAT": lambda m: m.push(m.line() and 0.5),
    "BINFLOAT": lambda m: m.push(m.take(8) and 0.5),
    "STRING": lambda m: m.push(m.text_line()),
    "UNICODE": lambda m: m.push(m.text_line()),
    "BINSTRING": lambda m: m.push(m.text(m.number("<i"))),
    "SHORT_BINSTRING": lambda m: m.push(m.text(m.number("<B"))),
    "BINBYTES": lambda m: m.push(m.text(m.number("<I"))),
    "SHORT_BINBYTES": lambda m: m.push(m.text(m.number("<B"))),
    "BINBYTES8": lambda m: m.push(m.text(m.number("<Q"))),
    "BYTEARRAY8": lambda m: m.push(m.blob(m.number("<Q"))),
    "BINUNICODE": lambda m: m.push(m.text(m.number("<I"))),
    "SHORT_BINUNICODE": lambda m: m.push(m.text(m.number("<B"))),
    "BINUNICODE8": lambda m: m.push(m.text(m.number("<Q"))),
    "EMPTY_TUPLE": lambda m: m.push(()),
    "TUPLE": _s.new_tuple,
    "TUPLE1": lambda m: m.new_tuple(1),
    "TUPLE2": lambda m: m.new_tuple(2),
    "TUPLE3": lambda m: m.new_tuple(3),
    "EMPTY_LIST": lambda m: m.push([]),
    "LIST": lambda m: m.push(m.pop_mark()),
    "APPEND": lambda m: m.append_items([m.pop()]),
    "APPENDS": lambda m: m.append_items(m.pop_mark()),
    "EMPTY_DICT": lambda m: m.push(_Dict()),
    "DICT": _s.new_dict,
    "SETITEM": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m: m.set_items(m.pop_mark()),
    "EMPTY_SET": lambda m: m.push(_Set()),
    "ADDITEMS": lambda m: m.add_items(m.pop_mark()),
    "FROZENSET": _s.new_frozenset,
    "GLOBAL": _s.global_,
    "STACK_GLOBAL": _s.stack_global,
    "INST": _s.inst,
    "OBJ": _s.obj,
    "REDUCE": _s.reduce,
    "NEWOBJ": _s.new_object,
    "NEWOBJ_EX": lambda m: m.new_object(with_keywords=True),
    "BUILD": _s.build,
    "PERSID": lambda m: m.persistent(m.text_line()),
    "BINPERSID": lambda m: m.persistent(m.pop()),
    "PUT": lambda m: m.remember(m.decimal()),
    "BINPUT": lambda m: m.remember(m.number("<B")),
    "LONG_BINPUT": lambda m: m.remember(m.number("<I")),
    "MEMOIZE": lambda m: m.remember(len(m.memo)),
    "GET": lambda m: m.recall(m.decimal()),
    "BINGET": lambda m: m.recall(m.number("<B")),
    "LONG_BINGET": lambda m: m.recall(m.number("<I")),
}
_ACTIONS = {getattr(pickle, name)[0]: action for name, action in _TABLE.items()}


def scan_pickle(data, start: int = 0, bytes_per_operation: int = BYTES_PER_OPERATION) -> Scan:
    """Run the pickle that begins at `start` on stand-ins.

    Args:
        data: bytes or mmap.
        bytes_per_operation: of a file with more than MOST_OPERATIONS, bytes that there must be for each.

    Raises:
        pickle.UnpicklingError: reading it would cost out of proportion to its size, or needs an operation that no
            checkpoint needs.
        Exception: it is damaged; of which class depends on where.
    """
    return _Scanner(data, start, bytes_per_operation).run()
