"""Memory that training frees and asks for again at every step stays with the process."""

from __future__ import annotations

import ctypes
import functools
import sys

# Parameters of mallopt, and their values in bytes (malloc.h of glibc).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
KEPT_BYTES, PAD_BYTES, MAPPED_BYTES = 512 << 20, 64 << 20, 32 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Ask the C library to keep freed blocks below 32 MB, at most 512 MB of them, in place of giving them back.

    A training step allocates and frees the same tens of megabytes each time. By default glibc returns them to the
    system and every page is fetched and zeroed again at its next use: 13,000 page faults a step, a third of the time
    of a `cgpt` training on one core (docs/experiments/kernels_cpu.md). No number changes by it.

    Returns:
        Whether this C library knows how (Linux with glibc). Holds for the whole process; calling it again is free.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    wanted = ((_MMAP_THRESHOLD, MAPPED_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES), (_TOP_PAD, PAD_BYTES))
    return all([library.mallopt(name, value) == 1 for name, value in wanted])
