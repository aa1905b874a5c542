"""How learning rates and help change with the steps of a run."""

from __future__ import annotations

import math


def scheduled(step: int, steps: int, rate: float, floor: float, warmup: int = 0) -> float:
    """A linear warm-up, then half a cosine down to ``floor``."""
    if step < warmup:
        return rate * (step + 1) / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return floor + (rate - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))
