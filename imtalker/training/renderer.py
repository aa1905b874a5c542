"""Training of the renderer: a person's pictures, a stranger's for contrast, an adversary (published implementation)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from imtalker.renderer.renderer import Renderer
from imtalker.renderer.transfer import SourceMaps
from imtalker.training.discriminator import TwoScales
from imtalker.training.helpers import near_transfer, routing_loss, told_transfer
from imtalker.training.losses import adversarial_loss, discriminator_loss, identity_distance_loss
from imtalker.training.norms import keep_statistics
from imtalker.training.optimisers import Kind, make_optimiser
from imtalker.training.pictures import PictureBatch
from imtalker.training.places import Places, true_places
from imtalker.training.state_codes import StateCodes

Routes = Literal["told", "near", "part", "own"]
"""Who says where the transfer looks: the truth; attention among the cells near the true place; the same, but for a part
of the picture in which attention is alone; attention alone."""

BETAS = (0.5, 0.999)
LEARNING_RATE = 1e-4
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class RendererWeights:
    """Of the terms of the renderer's loss."""

    pixels: float = 1.0
    squares: float = 0.0
    """Of the mean squared error, which the PSNR is made of; not in the paper."""
    perceptual: float = 10.0
    face: float = 100.0
    identity: float = 1.0
    adversarial: float = 1.0
    routing: float = 0.0
    """See `imtalker.training.helpers`; for batches with a truth, as the next."""
    codes: float = 0.0
    """See `imtalker.training.state_codes`."""


@dataclass(frozen=True)
class Prediction:
    frames: Tensor
    """[B, 3, R, R]"""
    code: Tensor
    """The driver's motion code, [B, dim_motion]."""
    reference_code: Tensor
    driving: list[Tensor]
    """Motion maps of the attention levels."""
    source: SourceMaps
    """Of the references, one for each frame."""
    adapted: tuple[Tensor, Tensor] | None
    """What the adaptation makes of ``code`` for the target's and for the negative's identity."""
    places: dict[int, Places] | None = None
    """Of the attention levels, by side; None where the transfer was not shown them."""


def predict(
    renderer: Renderer,
    batch: PictureBatch,
    *,
    contrast: bool = True,
    routes: Routes = "own",
    told: StateCodes | None = None,
    draw: torch.Generator | None = None,
) -> Prediction:
    """Render the driver's motion with the reference's face; ``adapted`` is made for ``contrast``.

    Where there is a truth, it may help: ``routes`` says how far the transfer is shown it, and ``told`` makes motion
    codes of the true states in place of the encoder's. ``draw`` picks the part.

    The identity encoder sees the three pictures one after the other, since batch norms in training mode mix a batch.
    """
    driver, truth = batch.moving, batch.truth
    each = len(driver) // len(batch.reference)
    features, own = renderer.encode_identity(batch.reference)
    if told is not None and truth is not None:
        reference_code, code = told(truth.reference_state), told(truth.target_state)
    else:
        codes = renderer.encode_motion(torch.cat([batch.reference, driver]))
        reference_code, code = codes[: len(batch.reference)], codes[len(batch.reference) :]
    maps = renderer.imt.prepare(renderer.motion_maps(reference_code, own), features)
    adapted = None
    if contrast:
        others = (renderer.encode_identity(pictures)[1] for pictures in (batch.target, batch.negative))
        of_target, of_other = (
            renderer.adapt(code, other.repeat_interleave(len(code) // len(other), 0)) for other in others
        )
        adapted = of_target, of_other
    if each > 1:
        own = own.repeat_interleave(each, 0)
        maps = SourceMaps(
            *([x.repeat_interleave(each, 0) for x in part] for part in (maps.keys, maps.values, maps.pooled))
        )
    driving = renderer.motion_maps(code, own)
    places = None
    if routes == "own" or truth is None:
        aligned = renderer.imt(driving, maps)
    else:
        places = true_places(truth, (x.shape[-1] for x in driving))
        if routes == "told":
            aligned = told_transfer(renderer.imt, maps, places)
        else:
            aligned = near_transfer(renderer.imt, driving, maps, places, draw if routes == "part" else None)
    frames = renderer.frame_decoder(aligned)
    return Prediction(frames, code, reference_code, driving, maps, adapted, places)


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
        average: float | None = None,
        equalised_rate: float = 1.0,
        codes_fixed: bool = False,
        kind: Kind = "adam",
    ) -> None:
        """``perceptual`` is a `PerceptualLoss`. Other precisions than float32 are used by autocast. ``average`` is the
        decay of a running average of the renderer's weights, kept as `average`. ``equalised_rate`` times the
        learning rate is that of the renderer's equalised layers: stored with unit spread, they hardly move at the rate
        that suits the others (StyleGAN2 trains them at 20 times the published rate here). ``codes_fixed`` leaves the
        motion encoder as it is. ``kind`` is that of the renderer's optimiser.

        All networks are on one device. In float16 gradients are scaled.
        """
        self.renderer, self.discriminator, self.perceptual = renderer, discriminator, perceptual
        self.weights = weights or RendererWeights()
        self.routes: Routes = "own"
        """How far the transfer is shown the truth from the next step on."""
        self.codes_told = False
        """Whether motion codes are made of true states from the next step on."""
        self.norms_learn = True
        """Whether batch norms use the statistics of each batch, and learn them, from the next step on."""
        self.steps = 0
        self._device = next(renderer.parameters()).device
        self._precision = precision
        dim_motion = renderer.config.dim_motion
        self._codes = StateCodes(dim_motion).to(self._device) if dim_motion >= StateCodes.SHORTEST else None
        self.average: AveragedModel | None = None
        if average is not None:
            self.average = AveragedModel(renderer, multi_avg_fn=get_ema_multi_avg_fn(average), use_buffers=True)
        self._codes_fixed = codes_fixed
        renderer.latent_token_encoder.requires_grad_(not codes_fixed)
        self._optimiser = make_optimiser(renderer, kind, learning_rate, BETAS, equalised_rate=equalised_rate)
        self._adversary = torch.optim.Adam(
            discriminator.parameters(), learning_rate * (self.weights.adversarial or 1), BETAS
        )
        self.set_learning_rate(learning_rate)
        scaled = precision == torch.float16
        self._scalers = [torch.amp.GradScaler(self._device.type, enabled=scaled) for _ in range(2)]

    def step(self, batches: Sequence[PictureBatch]) -> dict[str, float]:
        """One update from one batch, or from several whose gradients are averaged. Returns the means of all terms.

        As published the discriminator learns first, and the renderer then meets the new one; so with an adversary
        all batches are held at once, and several take as much memory as one of their size together.
        """
        self.renderer.train()
        self.renderer.latent_token_encoder.train(not self._codes_fixed)
        if not self.norms_learn:
            keep_statistics(self.renderer)
        self.discriminator.train()
        terms: dict[str, float] = {}

        def add(found: dict[str, Tensor]) -> None:
            for name, value in found.items():
                terms[name] = terms.get(name, 0.0) + value.item() / len(batches)

        contrast = bool(self.weights.identity)
        told = self._codes if self.codes_told else None
        draw = self._draw()

        def predicted(batch: PictureBatch) -> Prediction:
            with self._autocast():
                return predict(self.renderer, batch, contrast=contrast, routes=self.routes, told=told, draw=draw)

        self._optimiser.zero_grad(set_to_none=True)
        # Made as they are used, so that one batch's maps are gone before the next one's come.
        predictions: Iterable[Prediction] = map(predicted, batches)
        if self.weights.adversarial:
            predictions = list(predictions)
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
        if self.average is not None:
            self.average.update_parameters(self.renderer)
        self.steps += 1
        return terms

    def set_learning_rate(self, rate: float) -> None:
        """From the next step on; the adversary's is ``weights.adversarial`` times that."""
        for optimiser, factor in ((self._optimiser, 1.0), (self._adversary, self.weights.adversarial or 1.0)):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor * group.get("factor", 1.0)

    def losses(self, batch: PictureBatch, prediction: Prediction) -> dict[str, Tensor]:
        """The renderer's terms, unweighted, and their weighted sum as ``total``."""
        frames = prediction.frames
        found = {"pixels": (frames - batch.target).abs().mean()}
        if self.weights.squares:
            found["squares"] = (frames.float() - batch.target).square().mean()
        if self.weights.perceptual or (self.weights.face and batch.face is not None):
            found["perceptual"], found["face"] = self.perceptual(frames, batch.target, batch.face)
        if prediction.adapted is not None:
            found["identity"] = identity_distance_loss(prediction.code, *prediction.adapted)
        if self.weights.adversarial:
            found["adversarial"] = adversarial_loss(self.discriminator(frames))
        truth = batch.truth
        if truth is not None and self.weights.routing:
            driving, source = prediction.driving, prediction.source
            places = prediction.places or true_places(truth, (x.shape[-1] for x in driving))
            found["routing"] = routing_loss(self.renderer.imt, driving, source, truth, places, self._draw(), batch.face)
        if truth is not None and self._codes is not None and self.weights.codes:
            codes = torch.cat([prediction.reference_code, prediction.code])
            found["codes"] = self._codes.error(codes, torch.cat([truth.reference_state, truth.target_state]))
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
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.renderer.load_state_dict(state["renderer"])
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._adversary.load_state_dict(state["adversary"])
        for scaler, kept in zip(self._scalers, state["scalers"], strict=True):
            scaler.load_state_dict(kept)
        self.steps = state["steps"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def _draw(self) -> torch.Generator:
        """As many steps, as many draws: a run that goes on draws what it would have drawn."""
        return torch.Generator().manual_seed(self.steps)

    def _autocast(self) -> torch.autocast:
        enabled = self._precision != torch.float32
        return torch.autocast(self._device.type, self._precision if enabled else None, enabled=enabled)

    def _update(self, optimiser: torch.optim.Optimizer, network: nn.Module, scaler: torch.amp.GradScaler) -> None:
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        scaler.step(optimiser)
        scaler.update()
