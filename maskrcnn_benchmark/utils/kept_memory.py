"""Memory that a process frees stays its own, for the next picture."""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters in glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = -1


def keep_freed_memory() -> bool:
    """Tells the C library not to hand freed memory back to the system, from now on and in all of this process.

    Otherwise a map of 32 MiB or more is new memory every time, and the system fills its pages with zeros, one by one,
    when they are written first: a fifth to a third of a detector's time. The price: the process stays as large as it
    ever was, and blocks of changing sizes leave gaps: a peak 8 to 35 % higher, see benchmarks/kept_memory.py.

    Returns whether it did: only glibc on Linux can be told.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))
