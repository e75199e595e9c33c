"""Safe replacements for numpy's constructors in unpickling: only plain numbers and fixed-length strings."""

from __future__ import annotations

import math
import pickle
import re

import numpy as np

_DTYPE = re.compile(r"[<>=|]?(\?|b1|[iu][1248]|f[248]|c8|c16|[SUa][1-9]\d{0,6})")
_MOST_DIMENSIONS = 32


def _as_bytes(data) -> bytes:
    # Python 2 wrote array contents as str, which is read as latin1 text.
    return data.encode("latin1") if isinstance(data, str) else bytes(data)


class Dtype:
    """Replacement for numpy.dtype while unpickling: only plain numbers and fixed-length strings."""

    __slots__ = ("value",)

    def __init__(self, spec, align=False, copy=False):
        spec = spec.decode("ascii") if isinstance(spec, bytes) else spec
        if not isinstance(spec, str) or not _DTYPE.fullmatch(spec):
            raise pickle.UnpicklingError(
                f"numpy dtype {str(spec)[:80]!r} is refused: only numbers, bools and strings are read"
            )
        self.value = np.dtype(spec)

    def __setstate__(self, state):
        byte_order, fields = state[1], state[2:5]
        byte_order = byte_order.decode("ascii") if isinstance(byte_order, bytes) else byte_order
        if byte_order not in ("<", ">", "=", "|") or any(fields):
            raise pickle.UnpicklingError(
                f"numpy dtype state {str(state)[:80]} is refused: structured dtypes are not read"
            )
        self.value = self.value.newbyteorder(byte_order)


class Array(np.ndarray):
    """Replacement for numpy.ndarray while unpickling; the result is an ordinary array of this subclass."""

    def __new__(cls, *args):
        return np.zeros(0, np.uint8).view(cls)

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, Dtype):
            raise pickle.UnpicklingError(f"an array with a dtype of type {type(dtype).__name__} is refused")
        data = _as_bytes(data)
        _check_shape(shape, dtype.value, len(data))
        super().__setstate__((1, shape, dtype.value, is_fortran, data))


def _check_shape(shape, dtype: np.dtype, size: int) -> None:
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
        raise pickle.UnpicklingError(f"an array with {len(shape)} dimensions is refused")
    if not all(isinstance(side, int) and 0 <= side < 1 << 62 for side in shape):
        raise pickle.UnpicklingError(f"an array of shape {str(shape)[:80]} is refused")
    if math.prod(shape) * dtype.itemsize != size:
        raise pickle.UnpicklingError(f"an array of shape {str(shape)[:80]} of {dtype} with {size} bytes is refused")


def reconstruct(subtype, shape, typecode):
    if subtype is not Array:
        raise pickle.UnpicklingError(f"an array of type {subtype!r} is refused")
    return Array()


def array_from_buffer(data, dtype, shape, order):
    data = _as_bytes(data)
    _check_shape(tuple(shape), dtype.value, len(data))
    return np.frombuffer(data, dtype.value).reshape(shape, order=order).copy()


def scalar(dtype, data):
    return np.frombuffer(_as_bytes(data), dtype.value, count=1)[0]
