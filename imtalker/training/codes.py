"""The motion encoder's first lesson: codes that tell the state of an avatar.

It costs a tenth of rendering, and without it the transfer would have to route by codes that say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imtalker.renderer.renderer import Renderer
from imtalker.training.helpers import StateReadout
from imtalker.training.pictures import PictureBatch
from imtalker.training.renderer import rate_groups
from imtalker.training.schedule import scheduled

_BETAS = (0.9, 0.99)
_FLOOR, _WARMUP = 0.1, 100
MAX_GRADIENT_NORM = 1.0


class CodeTrainer:
    """The renderer's motion encoder, a linear read-out of its codes, and their optimiser."""

    def __init__(
        self,
        renderer: Renderer,
        readout: StateReadout,
        *,
        steps: int,
        learning_rate: float = 1e-3,
        equalised_rate: float = 1.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """The rate falls along a cosine to a tenth over ``steps``; ``equalised_rate`` as for `RendererTrainer`."""
        self.renderer, self.readout = renderer, readout
        self.steps = 0
        self._planned, self._rate, self._precision = steps, learning_rate, precision
        encoder = renderer.latent_token_encoder
        groups = rate_groups(encoder, readout.parameters(), equalised_rate)
        self._optimiser = torch.optim.Adam(groups, learning_rate, _BETAS)

    def step(self, batches: Sequence[PictureBatch]) -> dict[str, float]:
        """One update; batches need a truth. Returns the read-out's error."""
        rate = scheduled(self.steps, self._planned, self._rate, _FLOOR * self._rate, _WARMUP)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.renderer.train()
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches:
            loss = self._loss(batch) / len(batches)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.renderer.latent_token_encoder.parameters(), MAX_GRADIENT_NORM)
        self._optimiser.step()
        self.steps += 1
        return {"readout": total}

    def _loss(self, batch: PictureBatch) -> Tensor:
        if batch.truth is None:
            raise ValueError("expected pictures whose states are known (avatars), found others")
        pictures = torch.cat([batch.reference, batch.target if batch.driver is None else batch.driver])
        states = torch.cat([batch.truth.reference_state, batch.truth.target_state])
        device, half = pictures.device.type, self._precision == torch.bfloat16
        with torch.autocast(device, torch.bfloat16 if half else None, enabled=half):
            codes = self.renderer.encode_motion(pictures)
        error: Tensor = self.readout(codes.float(), states)
        return error

    def state_dict(self) -> dict[str, Any]:
        """Everything that `step` depends on, for an exact continuation."""
        return {
            "encoder": self.renderer.latent_token_encoder.state_dict(),
            "readout": self.readout.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.renderer.latent_token_encoder.load_state_dict(state["encoder"])
        self.readout.load_state_dict(state["readout"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.steps = state["steps"]
