"""Limit the memory of a file's tensors in relation to the file's size."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import torch

# Tensors with stride 0 may take this many more bytes than their storage when copied.
_FREE_EXPANSION = 64 << 20
_ITEM_BYTES = {
    **dict.fromkeys(("ComplexDouble",), 16),
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    **dict.fromkeys(("Float", "Int", "QInt32"), 4),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
}


def _storage_bytes(pid) -> tuple[str, int] | None:
    """Return key and claimed bytes of the storage of a persistent id; None for other persistent ids."""
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[2], str)):
        return None
    if not isinstance(pid[4], int) or pid[4] < 0:
        raise pickle.UnpicklingError("a storage without a size: refused")
    kind = str(getattr(pid[1], "name", "")).rpartition(".")[2].removesuffix("Storage")
    return pid[2], pid[4] * _ITEM_BYTES.get(kind, 1)


def check_storages(pids, room: int, sizes: Mapping[str, int] | None = None) -> None:
    """Raise if storages claim more bytes than `room`, or one claims more than the size of its record.

    Raises:
        EOFError: a storage claims too much.
        pickle.UnpicklingError: a storage has no size.
    """
    claimed = {}
    for pid in pids:
        found = _storage_bytes(pid)
        if found is not None:
            claimed[found[0]] = max(found[1], claimed.get(found[0], 0))
    for key, size in claimed.items():
        if sizes is not None and size > sizes.get(f"data/{key}", 0):
            raise EOFError(f"storage {key[:80]} would have {size:,} bytes, but its record has fewer")
    if sum(claimed.values()) > room:
        raise EOFError(f"its storages would have {sum(claimed.values()):,} bytes, but the file has {room:,}")


def check_expansion(value, size: int) -> None:
    """Raise if copies of the tensors would take much more memory than the file, as for tensors with stride 0.

    Raises:
        pickle.UnpicklingError: copies would exceed the tensors' storage by more than the file's size plus 64 MiB.
    """
    pending, room, seen = [value], size + _FREE_EXPANSION, set()
    while pending:
        item = pending.pop()
        if isinstance(item, torch.Tensor):
            if item.layout is torch.strided and not item.is_meta:
                excess = item.numel() * item.element_size() - item.untyped_storage().nbytes()
                room -= max(0, excess)
                if room < 0:
                    raise pickle.UnpicklingError(
                        f"a tensor of shape {str(tuple(item.shape))[:80]} whose elements share their memory is refused"
                    )
        elif isinstance(item, (list, tuple, Mapping)) and id(item) not in seen:
            seen.add(id(item))
            pending.extend(item.values() if isinstance(item, Mapping) else item)
