"""The terms of both training objectives (published implementation)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Distance = Literal["absolute", "squared"]
"""How errors of the velocity are averaged. The published training takes absolute ones, which make it the median of what
may follow; squared ones, those of flow matching as such (Lipman et al., 2023), the mean."""


def discriminator_loss(real: Iterable[Tensor], fake: Iterable[Tensor]) -> Tensor:
    """Non-saturating logistic loss of scores of real and rendered pictures, summed over discriminators."""
    losses = [F.softplus(-r).mean() + F.softplus(f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).sum()


def adversarial_loss(fake: Iterable[Tensor]) -> Tensor:
    """The renderer's side of `discriminator_loss`."""
    return torch.stack([F.softplus(-score).mean() for score in fake]).sum()


def identity_distance_loss(code: Tensor, adapted: Tensor, adapted_to_other: Tensor) -> Tensor:
    """How unequally far the identity-adaptive module moves a code for its own face and for another's.

    All [B, dim_motion]: the motion code, and what the module makes of it with its own identity and a stranger's.
    """
    own = torch.linalg.vector_norm(code - adapted, dim=1)
    other = torch.linalg.vector_norm(code - adapted_to_other, dim=1)
    return (own - other).abs().mean()


def flow_matching_loss(velocity: Tensor, motion: Tensor, noise: Tensor, distance: Distance = "absolute") -> Tensor:
    """Mean error of the velocity, whose target is ``motion - noise``; all [B, L, dim_motion]."""
    return _mean(velocity - (motion - noise), distance)


def velocity_loss(velocity: Tensor, motion: Tensor, noise: Tensor, distance: Distance = "absolute") -> Tensor:
    """The same of the velocity's change from frame to frame."""
    return _mean(velocity.diff(dim=1) - (motion - noise).diff(dim=1), distance)


def seam_loss(velocity: Tensor, motion: Tensor, noise: Tensor, kept: Tensor, distance: Distance = "absolute") -> Tensor:
    """What `velocity_loss` leaves out: the change from the context, which has no error, to the first frame.

    ``kept`` [B, 1, 1]: 0 for rows without their context, which have no seam. Not in the published objective.
    """
    return _mean((velocity - (motion - noise))[:, :1] * kept, distance)


def _mean(error: Tensor, distance: Distance) -> Tensor:
    return (error.abs() if distance == "absolute" else error.square()).mean()
