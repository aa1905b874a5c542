"""Exact float32, whatever the process has allowed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
