"""Reading and writing .safetensors: the length of a JSON header (8 bytes, little-endian), the header, the tensors.

The header tells of each tensor its dtype, its shape and where its bytes lie behind the header. Nothing in such a file
can run, and no package is needed for it.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping

import torch

from maskrcnn_benchmark.utils.atomic_write import atomic_write

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 100_000_000  # the format's own limit


def is_safetensors(path: str | os.PathLike) -> bool:
    """Whether the file begins like one: a length that fits the file, then a JSON object."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        return len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] + 8 <= os.path.getsize(path)
    except OSError:
        return False


def read_safetensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors by name, on the CPU.

    Raises:
        ValueError: the file is damaged, or has a dtype that is not read; the message names the tensor.
    """
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path} is damaged: its header would have {length:,} bytes")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: its header is no JSON ({error})") from error
        data = bytearray(file.read())
    return {name: _tensor(path, name, entry, data) for name, entry in header.items() if name != "__metadata__"}


def _tensor(path, name, entry, data: bytearray) -> torch.Tensor:
    try:
        kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if kind not in _DTYPES:
            raise ValueError(f"dtype {kind} is not read, only {', '.join(_DTYPES)}")
        dtype = _DTYPES[kind]
        size = math.prod(shape) * dtype.itemsize
        if not (0 <= start <= end <= len(data) and end - start == size and min(shape, default=0) >= 0):
            raise ValueError(f"shape {shape} of {kind} at bytes {start} to {end} of {len(data)}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be read: tensor {name!r}: {error}") from error
    # a copy, so that a tensor does not keep the whole file in memory
    return torch.frombuffer(data[start:end], dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)


def write_safetensors(path: str | os.PathLike, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors by name, atomically.

    Raises:
        TypeError: a tensor of a dtype that the format has no name for.
    """
    header, start = {}, 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise TypeError(f"tensor {name!r} is {tensor.dtype}; .safetensors has {', '.join(_NAMES.values())}")
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    with atomic_write(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
