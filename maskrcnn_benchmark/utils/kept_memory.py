"""Keep freed memory in the process, for the next image."""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters in glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = -1


def keep_freed_memory() -> bool:
    """Stop the C library from returning freed memory to the system, from now on in this whole process.

    Otherwise a map of 32 MiB or more is new memory every time, and the system zeroes its pages one by one on the first
    write: a fifth to a third of a detector's time. The cost: the process never shrinks, and blocks of changing sizes
    leave gaps. The peak is 8 to 35 % higher, see benchmarks/kept_memory.py.

    Returns:
        Whether it succeeded: only glibc on Linux supports it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has no mallopt
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))


def return_freed_memory() -> bool:
    """Return to the system the freed memory that the C library keeps between blocks in use.

    Returns:
        Whether any was returned: only glibc on Linux supports it. It also works after `keep_freed_memory`.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except AttributeError:  # musl has no malloc_trim
        return False
