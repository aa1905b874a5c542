"""One training step of the motion generator (IMTalker, section 3.3; Lipman et al., 2023, arXiv 2210.02747)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imtalker.generator.conditions import Conditions
from imtalker.generator.generator import MotionGenerator
from imtalker.training.losses import Distance, flow_matching_loss, seam_loss, velocity_loss
from imtalker.training.share import ALONE, Share


@dataclass(frozen=True)
class MotionBatch:
    """Runs of P + L frames at 25 a second, the context first."""

    motion: Tensor
    """[B, P + L, dim_motion]"""
    audio: Tensor
    """[B, P + L, 768]"""
    pose: Tensor
    """[B, P + L, 3], as camera. Rows that are NaN here, in camera and in gaze are unknown."""
    camera: Tensor
    gaze: Tensor
    """[B, P + L, 2], radians."""
    reference: Tensor
    """The code of any frame of each run, or of its clip, [B, dim_motion]."""


@dataclass(frozen=True)
class Dropout:
    """How often conditions are dropped, for each row; by ``now`` and ``before`` each on its own."""

    now: float = 0.1
    """Of the frames to be made."""
    before: float = 0.5
    """Of the context; its motion too."""
    speech_only: float = 0.0
    """Pose, camera and gaze together, of all frames: as where speech alone drives. The published training is without,
    so that it hardly ever sees a run that knows none of the three."""


@dataclass(frozen=True)
class Losses:
    flow_matching: Tensor
    velocity: Tensor
    seam: Tensor
    seam_weight: float = 0.0

    @property
    def total(self) -> Tensor:
        return self.flow_matching + self.velocity + self.seam_weight * self.seam


def training_losses(
    generator: MotionGenerator,
    batch: MotionBatch,
    draw: torch.Generator,
    dropout: Dropout | None = None,
    share: Share = ALONE,
    seam_weight: float = 0.0,
    distance: Distance = "absolute",
) -> Losses:
    """Losses of a batch at random times with random noise, conditions dropped at random.

    ``draw``, on the CPU, decides all of that; ``seam_weight`` is that of `seam_loss`, ``distance`` that of all losses.
    The reference is never dropped, what is unknown always. With a ``share`` the batch is this process's part, of the
    same size as the others', and chance is what it would be for the whole.
    """
    chance = _Chance(draw, dropout or Dropout(), share)
    rows, past = len(batch.motion), generator.config.num_prev_frames
    like = batch.motion
    before, now = batch.motion[:, :past], batch.motion[:, past:]
    t = share.rows(torch.rand(rows * share.size, generator=draw)).to(like)
    noise = share.rows(torch.randn(rows * share.size, *now.shape[1:], generator=draw)).to(like)
    projected = project_known(generator, batch)
    conditions = Conditions(
        *(
            chance.dropped(sequence, past)
            for sequence in (projected.audio, projected.pose, projected.camera, projected.gaze)
        )
    )
    if chance.dropout.speech_only:
        told = chance.kept(chance.dropout.speech_only, like)
        conditions = replace(
            conditions, **{name: told * getattr(conditions, name) for name in ("pose", "camera", "gaze")}
        )
    kept = chance.kept(chance.dropout.before, like)
    joined = replace(batch, motion=torch.cat([before * kept, now], 1))
    return losses_at(generator, joined, conditions, t, noise, kept, seam_weight, distance)


def project_known(generator: MotionGenerator, batch: MotionBatch) -> Conditions:
    """The batch's conditions, projected; where one is unknown, zeros, as where it is absent in sampling."""
    raw = {"pose": batch.pose, "camera": batch.camera, "gaze": batch.gaze}
    known = {name: ~rows.isnan().any(-1, keepdim=True) for name, rows in raw.items()}
    # Filled first: a gradient through NaN would be NaN, whatever it is multiplied with.
    filled = {name: torch.where(known[name], rows, 0.0) for name, rows in raw.items()}
    projected = generator.project(batch.audio, **filled)
    return replace(projected, **{name: getattr(projected, name) * known[name] for name in raw})


def losses_at(
    generator: MotionGenerator,
    batch: MotionBatch,
    conditions: Conditions,
    t: Tensor,
    noise: Tensor,
    kept: Tensor | None = None,
    seam_weight: float = 0.0,
    distance: Distance = "absolute",
) -> Losses:
    """Losses at times ``t`` [B] with noise [B, L, dim_motion] and projected conditions.

    ``kept`` [B, 1, 1] is 1 for rows whose context is that of the frames to be made, 0 for others; None: all are.
    """
    past = generator.config.num_prev_frames
    before, now = batch.motion[:, :past], batch.motion[:, past:]
    at = t[:, None, None]
    velocity = generator(t, at * now + (1 - at) * noise, before, batch.reference, conditions)
    return Losses(
        flow_matching_loss(velocity, now, noise, distance),
        velocity_loss(velocity, now, noise, distance),
        seam_loss(velocity, now, noise, torch.ones_like(at) if kept is None else kept, distance),
        seam_weight,
    )


@dataclass(frozen=True)
class _Chance:
    """What decides which conditions are dropped."""

    draw: torch.Generator
    dropout: Dropout
    share: Share

    def dropped(self, sequence: Tensor, past: int) -> Tensor:
        """Zeros in place of a row's context, and of its other frames."""
        before = sequence[:, :past] * self.kept(self.dropout.before, sequence)
        now = sequence[:, past:] * self.kept(self.dropout.now, sequence)
        return torch.cat([before, now], 1)

    def kept(self, probability: float, like: Tensor) -> Tensor:
        """[rows, 1, 1]: 0 with the probability, else 1."""
        drawn = torch.rand(len(like) * self.share.size, 1, 1, generator=self.draw)
        return (self.share.rows(drawn) >= probability).to(like)
