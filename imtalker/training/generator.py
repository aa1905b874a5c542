"""Training of the motion generator (published implementation)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imtalker.generator.generator import MotionGenerator
from imtalker.training.flow_matching import Dropout, MotionBatch, training_losses
from imtalker.training.losses import Distance
from imtalker.training.optimisers import Kind, make_optimiser
from imtalker.training.renderer import BETAS, LEARNING_RATE
from imtalker.training.schedule import scheduled
from imtalker.training.share import ALONE, Share

EMA_DECAY = 0.9999
FLOOR = 1e-5
"""Learning rate at the end of the cosine schedule."""


TERMS = ("flow_matching", "velocity", "seam", "total")
"""What a step reports of its losses."""


class GeneratorTrainer:
    """The generator, its running average, its optimiser and its source of chance. The audio encoder stays frozen."""

    def __init__(
        self,
        generator: MotionGenerator,
        *,
        total_steps: int,
        seed: int = 0,
        dropout: Dropout | None = None,
        learning_rate: float = LEARNING_RATE,
        decay: float = EMA_DECAY,
        precision: torch.dtype = torch.float32,
        kind: Kind = "adam",
        seam_weight: float = 0.0,
        distance: Distance = "absolute",
        share: Share = ALONE,
    ) -> None:
        """The learning rate falls along a cosine over ``total_steps``; ``seed`` decides times, noise and dropout,
        ``kind`` the optimiser; ``seam_weight`` is that of `imtalker.training.losses.seam_loss`, ``distance`` that of
        all losses.

        Other precisions than float32 are used by autocast; in float16 gradients are scaled.
        """
        self.generator = generator
        self.average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.steps = 0
        self._dropout = dropout
        self._share, self._seam_weight, self._distance = share, seam_weight, distance
        self._rates = learning_rate, min(FLOOR, learning_rate), total_steps
        self._draw = torch.Generator().manual_seed(seed)
        self._device = next(generator.parameters()).device
        self._precision = precision
        self._optimiser = make_optimiser(generator, kind, learning_rate, BETAS)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == torch.float16)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        rate, floor, steps = self._rates
        return scheduled(self.steps, steps, rate, floor)

    def step(self, batches: Sequence[MotionBatch]) -> dict[str, float]:
        """One update from one batch, or from several whose gradients are averaged.

        Returns the means of the terms over the batches, their weighted sum as ``total``, and the learning rate.
        """
        self.generator.train()
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate
        self._optimiser.zero_grad(set_to_none=True)
        terms = dict.fromkeys(TERMS, 0.0)
        enabled = self._precision != torch.float32
        for batch in batches:
            with torch.autocast(self._device.type, self._precision if enabled else None, enabled=enabled):
                losses = training_losses(
                    self.generator, batch, self._draw, self._dropout, self._share, self._seam_weight, self._distance
                )
            self._scaler.scale(losses.total / len(batches)).backward()
            for name in terms:
                terms[name] += getattr(losses, name).item() / len(batches)
        self._share.average_gradients(self.generator.parameters())
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.average.update_parameters(self.generator)
        terms["learning_rate"] = self.learning_rate
        self.steps += 1
        return terms

    def state_dict(self) -> dict[str, Any]:
        """Everything that `step` depends on, for an exact continuation."""
        return {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "draw": self._draw.get_state(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        self._draw.set_state(state["draw"])
        self.steps = state["steps"]
