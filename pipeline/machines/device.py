"""The device that networks run on."""

from __future__ import annotations

import torch

from pipeline.errors import CannotRun


def pick_device(wanted: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``; raises CannotRun when it is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CannotRun("device: cuda was asked for, but torch sees no GPU; use device: auto or cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
