"""Measure peak memory: of torch's allocator on a GPU, of the process on the CPU."""

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
    """Meter of peak memory, relative to the memory in use when the meter is made.

    Args:
        device: a GPU, where tensors are counted, or the CPU, where the resident memory of the process is counted.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.known = True
        self.before = self._used()

    def start(self) -> None:
        """Reset the peak."""
        self._used()  # collects garbage, which must not count
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            CLEAR.write_text("5")
        except OSError:
            self.known = False

    def peak(self) -> int | None:
        """Return the peak in bytes above the memory at construction; None if the system does not report it."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        peak = _resident("VmHWM")
        return None if peak is None or not self.known else max(peak - self.before, 0)

    def _used(self) -> int:
        gc.collect()
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory, which would hide later allocations
        return _resident("VmRSS") or 0


def _resident(field: str) -> int | None:
    """Return a field of Linux's /proc/self/status in bytes; None if it is missing."""
    try:
        found = re.search(rf"^{field}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None
