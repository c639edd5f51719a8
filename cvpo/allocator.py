"""The C library's allocator, told to keep the memory that an update will ask for again."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt(3)."""
MIB = 2**20


def keep_memory() -> bool:
    """Let this process keep freed memory of up to 2 GiB for its next allocations; whether the C library can.

    By default glibc returns tensors of 128 KiB and more to the system when they are freed, and the next update takes
    the same memory back page by page, a fault for each. The peak of the memory stays what it was. It is for the whole
    process, and not undone: runs call it (:mod:`cvpo.run`), in a program of your own call it once at the start.
    Elsewhere than on glibc it does nothing and returns False.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # 32 MiB is the largest threshold that glibc takes.
    wishes = ((_MMAP_THRESHOLD, 32 * MIB), (_TRIM_THRESHOLD, 2047 * MIB), (_TOP_PAD, 16 * MIB))
    return all([mallopt(ctypes.c_int(parameter), ctypes.c_int(value)) == 1 for parameter, value in wishes])
