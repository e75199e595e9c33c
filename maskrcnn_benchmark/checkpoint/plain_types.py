"""Convert checkpoints to tensors and plain Python types, so that every torch version reads them safely."""

from __future__ import annotations

import collections

import numpy as np
import torch

_SCALARS = (bool, int, float, complex, str, bytes, type(None))


def _plain_tensor(tensor: torch.Tensor, seen: dict) -> torch.Tensor:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
        raise TypeError(f"a tensor of class {type(tensor).__name__}")
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        return tensor.cpu()
    storage = tensor.untyped_storage()
    # Modules with two names (the C4 heads' layer4) share their storage: write it once, like torch.save.
    identity = (storage.data_ptr(), tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
    if identity not in seen or not storage.nbytes():
        # torch.save writes the whole storage of a view, so a slice of a larger buffer is copied first.
        is_view = storage.nbytes() > tensor.numel() * tensor.element_size()
        seen[identity] = tensor.clone().cpu() if is_view else tensor.cpu()
    return seen[identity]


def to_plain(value, name: str = "checkpoint", _seen: dict | None = None):
    """Copy nested dicts, lists and tuples with tensors moved to the CPU and numpy scalars converted to Python numbers.

    Tensors already on the CPU are not copied. OrderedDict and defaultdict become dict; Counter is kept, as schedulers
    require it.

    Args:
        value: value to copy.
        name: name of the value in errors.

    Raises:
        TypeError: the value has another type; the message names the entry.
    """
    seen = {} if _seen is None else _seen
    kind = type(value)
    if isinstance(value, torch.Tensor):
        try:
            return _plain_tensor(value, seen)
        except TypeError as error:
            raise TypeError(f"{name} is {error}; a checkpoint may hold only plain tensors, convert it first") from None
    if isinstance(value, np.generic):
        return value.item()
    if kind in _SCALARS:
        return value
    if kind in (dict, collections.OrderedDict, collections.defaultdict, collections.Counter):
        plain = {to_plain(key, f"a key of {name}"): to_plain(v, f"{name}[{key!r}]", seen) for key, v in value.items()}
        return collections.Counter(plain) if kind is collections.Counter else plain
    if kind in (list, tuple, set, torch.Size):
        plain = [to_plain(v, f"{name}[{i}]", seen) for i, v in enumerate(value)]
        return tuple(plain) if kind is torch.Size else kind(plain)
    advice = "torch.from_numpy(...) or .tolist()" if isinstance(value, np.ndarray) else "a str, a dict or a tensor"
    raise TypeError(
        f"{name} is a {kind.__module__}.{kind.__qualname__}, but a checkpoint may hold only tensors and plain Python "
        f"types, so that it can be read without executing code. Convert it to {advice} before saving."
    )
