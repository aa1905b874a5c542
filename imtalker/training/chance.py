"""Random numbers that follow from what they are for, not from what was drawn before."""

from __future__ import annotations

import hashlib

import torch


def chance(*purpose: int) -> torch.Generator:
    """A source of its own for every tuple of numbers, such as (seed, step, row).

    Hashed, because torch's CPU source takes 32 bits of its seed and drops the rest.
    """
    text = "/".join(map(str, purpose)).encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:4], "little"))
