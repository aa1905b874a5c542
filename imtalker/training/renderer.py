"""Training of the renderer: a person's pictures, a stranger's for contrast, an adversary (published implementation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imtalker.renderer.renderer import Renderer
from imtalker.training.discriminator import TwoScales
from imtalker.training.losses import adversarial_loss, discriminator_loss, identity_distance_loss

BETAS = (0.5, 0.999)
LEARNING_RATE = 1e-4
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class PictureBatch:
    """All [B, 3, R, R] in 0..1."""

    reference: Tensor
    target: Tensor
    """Another frame of the reference's clip."""
    negative: Tensor
    """A frame of another person."""
    face: Tensor | None = None
    """Weight of eyes and mouth in the target, [B, 1, R, R]: the sum of their masks; None for no such loss."""


@dataclass(frozen=True)
class RendererWeights:
    """Of the terms of the renderer's loss."""

    pixels: float = 1.0
    perceptual: float = 10.0
    face: float = 100.0
    identity: float = 1.0
    adversarial: float = 1.0


@dataclass(frozen=True)
class Prediction:
    frames: Tensor
    """[B, 3, R, R]"""
    code: Tensor
    """The target's motion code, and what the adaptation makes of it for its own and for the negative's identity;
    [B, dim_motion] each."""
    adapted: Tensor
    adapted_to_other: Tensor


def predict(renderer: Renderer, batch: PictureBatch) -> Prediction:
    """Render the target's motion with the reference's face.

    The identity encoder sees the three pictures one after the other, since batch norms in training mode mix a batch.
    """
    features, own = renderer.encode_identity(batch.reference)
    _, of_target = renderer.encode_identity(batch.target)
    _, of_other = renderer.encode_identity(batch.negative)
    source, code = renderer.encode_motion(batch.reference), renderer.encode_motion(batch.target)
    maps = renderer.imt.prepare(renderer.motion_maps(source, own), features)
    frames = renderer.frame_decoder(renderer.imt(renderer.motion_maps(code, own), maps))
    return Prediction(frames, code, renderer.adapt(code, of_target), renderer.adapt(code, of_other))


class RendererTrainer:
    """Both networks with their optimisers: one call of `step` is one update of each."""

    def __init__(
        self,
        renderer: Renderer,
        discriminator: TwoScales,
        perceptual: nn.Module,
        *,
        weights: RendererWeights | None = None,
        learning_rate: float = LEARNING_RATE,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """``perceptual`` is a `PerceptualLoss`. Other precisions than float32 are used by autocast.

        All networks are on one device. In float16 gradients are scaled.
        """
        self.renderer, self.discriminator, self.perceptual = renderer, discriminator, perceptual
        self.weights = weights or RendererWeights()
        self.steps = 0
        self._device = next(renderer.parameters()).device
        self._precision = precision
        self._optimiser = torch.optim.Adam(renderer.parameters(), learning_rate, BETAS)
        self._adversary = torch.optim.Adam(
            discriminator.parameters(), learning_rate * (self.weights.adversarial or 1), BETAS
        )
        scaled = precision == torch.float16
        self._scalers = [torch.amp.GradScaler(self._device.type, enabled=scaled) for _ in range(2)]

    def step(self, batches: Sequence[PictureBatch]) -> dict[str, float]:
        """One update from one batch, or from several whose gradients are averaged. Returns the means of all terms.

        As published the discriminator learns first, and the renderer then meets the new one.
        """
        self.renderer.train()
        self.discriminator.train()
        predictions = []
        terms: dict[str, float] = {}

        def add(found: dict[str, Tensor]) -> None:
            for name, value in found.items():
                terms[name] = terms.get(name, 0.0) + value.item() / len(batches)

        self._optimiser.zero_grad(set_to_none=True)
        for batch in batches:
            with self._autocast():
                predictions.append(predict(self.renderer, batch))
        if self.weights.adversarial:
            self._adversary.zero_grad(set_to_none=True)
            self.discriminator.requires_grad_(True)
            for batch, prediction in zip(batches, predictions, strict=True):
                with self._autocast():
                    fake = self.discriminator(prediction.frames.detach())
                    loss = discriminator_loss(self.discriminator(batch.target), fake)
                self._scalers[0].scale(loss / len(batches)).backward()
                add({"discriminator": loss.detach()})
            self._update(self._adversary, self.discriminator, self._scalers[0])
            self.discriminator.requires_grad_(False)
        for batch, prediction in zip(batches, predictions, strict=True):
            with self._autocast():
                found = self.losses(batch, prediction)
            self._scalers[1].scale(found["total"] / len(batches)).backward()
            add({name: value.detach() for name, value in found.items()})
        self._update(self._optimiser, self.renderer, self._scalers[1])
        self.steps += 1
        return terms

    def losses(self, batch: PictureBatch, prediction: Prediction) -> dict[str, Tensor]:
        """The renderer's terms, unweighted, and their weighted sum as ``total``."""
        frames = prediction.frames
        found = {"pixels": (frames - batch.target).abs().mean()}
        if self.weights.perceptual or (self.weights.face and batch.face is not None):
            found["perceptual"], found["face"] = self.perceptual(frames, batch.target, batch.face)
        found["identity"] = identity_distance_loss(prediction.code, prediction.adapted, prediction.adapted_to_other)
        if self.weights.adversarial:
            found["adversarial"] = adversarial_loss(self.discriminator(frames))
        weighted = [getattr(self.weights, name) * value for name, value in found.items()]
        return found | {"total": torch.stack(weighted).sum()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that `step` depends on, for an exact continuation."""
        return {
            "renderer": self.renderer.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "adversary": self._adversary.state_dict(),
            "scalers": [scaler.state_dict() for scaler in self._scalers],
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.renderer.load_state_dict(state["renderer"])
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._adversary.load_state_dict(state["adversary"])
        for scaler, kept in zip(self._scalers, state["scalers"], strict=True):
            scaler.load_state_dict(kept)
        self.steps = state["steps"]

    def _autocast(self) -> torch.autocast:
        enabled = self._precision != torch.float32
        return torch.autocast(self._device.type, self._precision if enabled else None, enabled=enabled)

    def _update(self, optimiser: torch.optim.Optimizer, network: nn.Module, scaler: torch.amp.GradScaler) -> None:
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        scaler.step(optimiser)
        scaler.update()
