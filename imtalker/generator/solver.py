"""The ODE solver of flow matching."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(time [], state [...]) -> velocity [...]"""


def euler(velocity: Velocity, start: torch.Tensor, points: int) -> torch.Tensor:
    """Integrate ``velocity`` from time 0 to 1 with explicit Euler steps on ``points`` equally spaced times.

    There are ``points - 1`` evaluations, at the left end of each step; one point returns ``start``.
    Raises ValueError for fewer than one point.
    """
    if points < 1:
        raise ValueError(f"nfe counts the points of the time grid and must be at least 1, found {points}")
    times = torch.linspace(0, 1, points, dtype=start.dtype, device=start.device)
    state = start
    for now, then in pairwise(times):
        state = state + (then - now) * velocity(now, state)
    return state
