"""Number types: what a device computes with, and exact float32 whatever the process has allowed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_AMPERE = (8, 0)


def usable(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """``dtype``, but float16 in place of bfloat16 on GPUs before Ampere, which only emulate it."""
    if dtype == torch.bfloat16 and device.type == "cuda" and torch.cuda.get_device_capability(device) < _AMPERE:
        return torch.float16
    return dtype


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """float32 products with all their bits: no TF32 on GPUs, no bfloat16 shortcut on CPUs.

    Reduced products would flip best matches of the motion transfer. The settings belong to the process; they are
    put back on the way out.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        if device.type == "cuda":
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
                yield
        else:
            yield
    finally:
        torch.set_float32_matmul_precision(before)
