"""Batches of pictures to train a renderer with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Truth:
    """What is known of pictures that were made (see `imtalker.avatars`), for k targets a reference."""

    reference_state: Tensor
    """[B, 14]"""
    target_state: Tensor
    """[k B, 14]"""
    reference_coordinates: Tensor
    """What each cell shows: points [k B, 2 or more, n, n] that are equal for the same content; also the reference's.

    The first two are its place in the neutral picture, in -1..1."""
    target_coordinates: Tensor


@dataclass(frozen=True)
class PictureBatch:
    """All [B, 3, R, R] in 0..1; of targets, and what belongs to them, there may be k times as many."""

    reference: Tensor
    target: Tensor
    """Another frame of the reference's clip."""
    negative: Tensor
    """A frame of another person."""
    face: Tensor | None = None
    """Weight of eyes and mouth in the target, [B, 1, R, R]: the sum of their masks; None for no such loss."""
    driver: Tensor | None = None
    """Whose motion is transferred; None for the target's own."""
    truth: Truth | None = None

    @property
    def moving(self) -> Tensor:
        """The pictures whose motion is transferred."""
        return self.target if self.driver is None else self.driver
