"""Freed memory stays with the process: training on a CPU allocates the same large maps in every step."""

from __future__ import annotations

import ctypes

# <malloc.h> of glibc
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE = 2**31 - 1
_PAD = 256 * 2**20


def keep_freed_memory() -> None:
    """Without it every map is mapped, zeroed page by page, and unmapped again; a tenth of a step and more. Only glibc
    has such settings, elsewhere nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in ((_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, _PAD), (_MMAP_THRESHOLD, _LARGE)):
            mallopt(setting, value)
