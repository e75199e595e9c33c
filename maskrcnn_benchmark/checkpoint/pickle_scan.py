"""Run a pickle with placeholders, to find the time and memory that reading it would take before it is built.

`pickle_bounds` has the placeholders and the limits. This file has the machine: one method or line per operation that
checkpoints use. It also refuses lengths and memo numbers beyond the file's size.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import NoReturn

from .pickle_bounds import (
    BYTES_PER_OPERATION,
    DEEPEST,
    LONGEST_KEPT,
    LONGEST_NUMBER,
    Blob,
    Budget,
    Call,
    Dict,
    Global,
    Set,
    refuse,
)


@dataclass
class Scan:
    """Result of scanning a pickle.

    Attributes:
        end: offset after its STOP.
        value: placeholder of the object.
        persistent_ids: placeholders of persistent ids.
    """

    end: int
    value: object
    persistent_ids: list


def _damaged(why: str) -> NoReturn:
    raise EOFError(why)


class _Scanner:
    def __init__(self, data, start: int, bytes_per_operation: int):
        self.data, self.at, self.size = data, start, len(data)
        self.stack: list = []
        self.marks: list[list] = []
        self.memo: dict[int, object] = {}
        self.persistent_ids: list = []
        self.budget = Budget(self.size - start, bytes_per_operation)

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

    def blob(self, size: int) -> Blob:
        if not 0 <= size <= self.size - self.at:
            _damaged("the pickle ends in the middle of a string")
        self.at += size
        return Blob(size)

    def text(self, size: int):
        return self.blob(size) if size > LONGEST_KEPT else bytes(self.take(size)).decode("latin1")

    def text_line(self):
        line = self.line()
        return Blob(len(line)) if len(line) > LONGEST_KEPT else bytes(line).decode("latin1")

    def long(self, size: int) -> int:
        if not 0 <= size <= LONGEST_NUMBER:
            refuse(f"an integer of {size} bytes")
        return int.from_bytes(self.take(size), "little", signed=True)

    def decimal(self) -> int:
        line = self.line().strip().rstrip(b"L")
        if len(line) > 2 * LONGEST_NUMBER:
            refuse(f"an integer of {len(line)} digits")
        return int(line or b"0")

    # the stack

    def pop(self):
        if not self.stack:
            _damaged("the pickle takes from an empty stack")
        return self.stack.pop()

    def top(self, kind=object):
        if not self.stack:
            _damaged("the pickle reads from an empty stack")
        if not isinstance(self.stack[-1], kind):
            _damaged("the pickle adds entries to an object that accepts none")
        return self.stack[-1]

    def pop_mark(self) -> list:
        if not self.marks:
            _damaged("the pickle lacks a mark")
        items, self.stack = self.stack, self.marks.pop()
        return items

    # the program

    def run(self) -> Scan:
        actions = _ACTIONS
        for _ in range(self.budget.most_operations):
            if self.at >= self.size:
                _damaged("the pickle ends without its STOP")
            code = self.data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                value = self.pop()
                self.budget.spend(value)
                return Scan(self.at, value, self.persistent_ids)
            action = actions.get(code)
            if action is None:
                refuse(f"the operation {bytes([code])!r}, which checkpoints do not use")
            action(self)
        refuse(f"more than {self.budget.most_operations:,} operations")

    def call(self, function, arguments) -> Call:
        name = function.name if isinstance(function, Global) else "a call's result"
        if not isinstance(arguments, tuple):
            _damaged(f"a call of {name} without a tuple of arguments")
        self.budget.spend_call(name, arguments)
        return Call(name, arguments)

    def build(self) -> None:
        state = self.pop()
        self.budget.spend(state)
        target = self.top()
        if isinstance(target, list):
            target.append(state)

    def push(self, value) -> None:
        self.stack.append(value)

    def remember(self, index: int) -> None:
        if not 0 <= index <= self.size:
            refuse(f"a memo entry numbered {index}")
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
        target = self.top((Dict, Call))
        self.budget.check_keys(pairs[::2])
        target.extend(pairs)

    def new_dict(self) -> None:
        pairs = self.pop_mark()
        self.push(Dict())
        self.set_items(pairs)

    def add_items(self, items: list) -> None:
        self.budget.check_keys(items)
        self.top(Set).extend(items)

    def new_frozenset(self) -> None:
        items = self.pop_mark()
        self.budget.check_keys(items)
        self.push(Set(items))

    def inst(self) -> None:
        module, name = bytes(self.line()).decode("latin1"), bytes(self.line()).decode("latin1")
        self.push(self.call(Global(f"{module}.{name}"), tuple(self.pop_mark())))

    def obj(self) -> None:
        items = self.pop_mark()
        if not items:
            _damaged("an object without a class")
        self.push(self.call(items[0], tuple(items[1:])))

    def global_(self) -> None:
        module, name = bytes(self.line()).decode("latin1"), bytes(self.line()).decode("latin1")
        self.push(Global(f"{module}.{name}"))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(Global(f"{module}.{name}" if isinstance(name, str) and isinstance(module, str) else "?"))

    def reduce(self) -> None:
        arguments = self.pop()
        self.push(self.call(self.pop(), arguments))

    def new_object(self, with_keywords: bool = False) -> None:
        keywords = self.pop() if with_keywords else Dict()
        arguments = self.pop()
        made = self.call(self.pop(), arguments)
        self.budget.spend(keywords)
        made.append(keywords)
        self.push(made)

    def persistent(self, pid) -> None:
        self.budget.spend(pid)
        self.persistent_ids.append(pid)
        self.push(Call("persistent id", (pid,)))

    def new_mark(self) -> None:
        self.marks.append(self.stack)
        if len(self.marks) > 10 * DEEPEST:
            refuse("marks nested too deep")
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
        if isinstance(target, (Dict, Set)):
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
    "EMPTY_DICT": lambda m: m.push(Dict()),
    "DICT": _s.new_dict,
    "SETITEM": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m: m.set_items(m.pop_mark()),
    "EMPTY_SET": lambda m: m.push(Set()),
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
    """Run the pickle at offset `start` with placeholders.

    Args:
        data: bytes or mmap.
        start: offset of the pickle.
        bytes_per_operation: minimum bytes per operation in files with more than MOST_OPERATIONS operations.

    Raises:
        pickle.UnpicklingError: reading it would take too much time or memory for its size, or it has an operation that
            checkpoints do not use.
        Exception: it is damaged; the class depends on the damage.
    """
    return _Scanner(data, start, bytes_per_operation).run()
