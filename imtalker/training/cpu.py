"""What a training on a CPU sets up in its process first."""

from __future__ import annotations

import ctypes

import torch

# <malloc.h> of glibc
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE = 2**31 - 1
_PAD = 256 * 2**20


def tune_cpu() -> None:
    """Freed memory stays with the process, and numbers below the normal ones are zero; for all of the process.

    Every step allocates the same large maps: without the first each is mapped, zeroed page by page, and unmapped
    again, a tenth of a step and more. Only glibc has such settings, elsewhere nothing happens. Attention that is sure
    gives the cells that it does not look at such small numbers, which take an x86 many times as long: a quarter of a
    step of the renderer.
    """
    torch.set_flush_denormal(True)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in ((_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, _PAD), (_MMAP_THRESHOLD, _LARGE)):
            mallopt(setting, value)
