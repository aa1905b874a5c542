"""A network that reads avatars' states off pictures: the judge of what a renderer has made.

It is fitted on true avatars alone and knows nothing of the renderer or its motion codes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from imtalker.avatars import NEUTRAL, STATE_FIELDS
from imtalker.training.avatar_pictures import AvatarPool
from imtalker.training.schedule import scheduled

_WIDTHS = (32, 48, 64, 96, 128)
_HIDDEN = 256
_ROWS = 24
_RATE, _FLOOR, _WARMUP = 1e-3, 1e-5, 100
# Brightness, contrast and blur of what is rendered may be off; the reader should not mind.
_NOISE, _LIGHT = 0.03, 0.1


class StateReader(nn.Module):
    """Pictures [B, 3, R, R] in 0..1 -> states [B, 14]."""

    neutral: Tensor

    def __init__(self, resolution: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in _WIDTHS:
            layers += [nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        side = resolution >> len(_WIDTHS)
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(inputs * side**2, _HIDDEN),
            nn.BatchNorm1d(_HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, len(STATE_FIELDS)),
        )
        self.register_buffer("neutral", torch.tensor(NEUTRAL), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures) + self.neutral


def fit_reader(
    pool: AvatarPool, steps: int, *, seed: int = 0, report: Callable[[int, float], None] = lambda step, loss: None
) -> StateReader:
    """Fit a reader on the pictures of a pool, with noise and changes of light. It is in evaluation mode, on the CPU."""
    torch.manual_seed(seed)
    reader = StateReader(pool.images.shape[-1]).train()
    spread = pool.states.flatten(0, 1).std(0).clamp(min=1e-6)
    optimiser = torch.optim.AdamW(reader.parameters(), _RATE, weight_decay=0.01)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = scheduled(step, steps, _RATE, _FLOOR, _WARMUP)
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        pictures, states = pool.pictures(_ROWS, draw)
        light = 1 + _LIGHT * (2 * torch.rand(_ROWS, 1, 1, 1, generator=draw) - 1)
        pictures = light * pictures + _NOISE * torch.rand(_ROWS, 1, 1, 1, generator=draw) * torch.randn(
            pictures.shape, generator=draw
        )
        loss = ((reader(pictures) - states) / spread).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        report(step + 1, loss.item())
    return reader.eval()
