"""The most memory that something takes: of the GPU's allocator, or of the process on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class MemoryMeter:
    """Counts from what is in use when it is made.

    Args:
        device: a GPU, whose tensors are counted, or the CPU, where everything counts that the process has resident.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.known = True
        self.before = self._used()

    def start(self) -> None:
        """The peak is that from here on."""
        self._used()  # what is freed now must not be part of it
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            CLEAR.write_text("5")
        except OSError:
            self.known = False

    def peak(self) -> int | None:
        """Bytes above what was in use at first; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        peak = _resident("VmHWM")
        return None if peak is None or not self.known else max(peak - self.before, 0)

    def _used(self) -> int:
        gc.collect()
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory, which would hide what is taken next
        return _resident("VmRSS") or 0


def _resident(field: str) -> int | None:
    """Bytes in a line of Linux's status file of this process."""
    try:
        found = re.search(rf"^{field}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None
