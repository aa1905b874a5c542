"""Training pictures of procedural avatars, whose geometry is known exactly.

Identities come in groups that share their states, so that a batch can show one avatar's face with another one's motion
and the true result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from imtalker.avatars import STATE_RANGES, Rendering, draw_identity, render
from imtalker.avatars.identity import World
from imtalker.avatars.speech.gestures import GESTURE_COLUMNS, LIVELINESS, gesture
from imtalker.training.pictures import PictureBatch, Truth

HELD_OUT_IDENTITIES = 10_000
"""Identities of seeds below this one are never trained on."""

_GROUP = 4
_CELLS = 64
# Between layers, in half pictures: so that content is nearest to its own layer's.
_LAYERS_APART = 4.0
# Between two states; someone who talks has moved on by then.
_APART_S = 2.0


class KnownPictures(NamedTuple):
    """B pictures with all that is known of them."""

    pictures: Tensor
    """float32 [B, 3, R, R] in 0..1"""
    states: Tensor
    """[B, 14]"""
    coordinates: Tensor
    """float32 [B, 3, n, n], see `AvatarPool`."""
    face: Tensor
    """[B, 1, R, R] in 0..1: eyes and mouth."""


@dataclass(frozen=True)
class AvatarPool:
    """Pictures of G groups of 4 identities, all of a group in the same K states.

    Images and masks are bytes; ``coordinates`` are those of `imtalker.avatars.Rendering` in 64 x 64 places (fewer for
    pictures that small), with layers as a third one, far apart.
    """

    images: Tensor
    """uint8 [G, 4, K, 3, R, R]"""
    face: Tensor
    """uint8 [G, 4, K, R, R]: eyes and mouth."""
    coordinates: Tensor
    """float16 [G, 4, K, 3, 64, 64]"""
    states: Tensor
    """float32 [G, K, 14]"""

    @classmethod
    def draw(cls, seed: int, groups: int, states: int, size: int, world: World = "full") -> AvatarPool:
        """A pool of a seed; pools of different seeds share no identity. The same on every machine up to rounding."""
        parts = list(_groups(seed, groups, states, size, world))
        return cls(*(torch.stack(column) for column in zip(*parts, strict=True)))

    @classmethod
    def kept(cls, path: Path, seed: int, groups: int, states: int, size: int, world: World = "full") -> AvatarPool:
        """The pool in the file ``path``, which is made when it is missing."""
        if not path.exists():
            pool = cls.draw(seed, groups, states, size, world)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            save_file(vars(pool), partial)
            partial.replace(path)
        return cls(**load_file(path))

    def batch(self, references: int, targets: int, draw: torch.Generator, strangers: float = 0.5) -> PictureBatch:
        """``references`` pictures, and for each ``targets`` others of the same avatar.

        With probability ``strangers`` the driver shows another avatar of the group in the target's state, else it is
        the target itself.
        """
        groups, people, count = self.images.shape[:3]

        def pick(low: int, *shape: int) -> Tensor:
            return torch.randint(low, shape, generator=draw)

        group, who, first = pick(groups, references), pick(people, references), pick(count, references)
        repeat = group.repeat_interleave(targets), who.repeat_interleave(targets), first.repeat_interleave(targets)
        then = (repeat[2] + 1 + pick(count - 1, references * targets)) % count
        moved = torch.rand(references * targets, generator=draw) < strangers
        driver = torch.where(moved, (repeat[1] + 1 + pick(people - 1, references * targets)) % people, repeat[1])
        other = (group + 1 + pick(max(1, groups - 1), references)) % groups
        target = self._pictures(repeat[0], repeat[1], then)
        return PictureBatch(
            reference=self._pictures(group, who, first),
            target=target,
            negative=self._pictures(other, who, first),
            face=self.face[repeat[0], repeat[1], then][:, None].float() / 255,
            driver=self._pictures(repeat[0], driver, then),
            truth=Truth(
                reference_state=self.states[group, first],
                target_state=self.states[repeat[0], then],
                reference_coordinates=self.coordinates[repeat].float(),
                target_coordinates=self.coordinates[repeat[0], repeat[1], then].float(),
            ),
        )

    def pictures(self, count: int, draw: torch.Generator) -> KnownPictures:
        """Random ones."""
        group, who, state = (torch.randint(n, (count,), generator=draw) for n in self.images.shape[:3])
        return KnownPictures(
            self._pictures(group, who, state),
            self.states[group, state],
            self.coordinates[group, who, state].float(),
            self.face[group, who, state][:, None].float() / 255,
        )

    def _pictures(self, group: Tensor, who: Tensor, state: Tensor) -> Tensor:
        return self.images[group, who, state].float() / 255


def draw_states(count: int, draw: torch.Generator) -> Tensor:
    """Random states float32 [count, 14]: heads and gaze as in speech, and lids, brows and mouths of all shapes.

    See `imtalker.avatars.speech.gestures`; one draw is calm, natural or lively. Heads that turn further than in speech
    would leave much to learn that no clip shows.
    """

    def uniform() -> Tensor:
        return torch.rand(count, generator=draw)

    seed, liveliness = (int(torch.randint(high, (), generator=draw)) for high in (2**31, len(LIVELINESS)))
    times = _APART_S * np.arange(count)
    gestures = torch.from_numpy(gesture(times, seed=seed, liveliness=tuple(LIVELINESS.values())[liveliness]))
    columns = dict(zip(GESTURE_COLUMNS, gestures.unbind(1), strict=True))
    lids = uniform()
    columns["blink"] = torch.where(lids < 0.7, 0.0, torch.where(lids < 0.8, 1.0, uniform()))
    columns["brows"] = 0.8 * (2 * uniform() - 1)
    opening = torch.where(uniform() < 0.25, 0.0, uniform() ** 1.3)
    columns["mouth_open"] = opening
    columns["mouth_width"] = 0.9 * (2 * uniform() - 1)
    columns["mouth_round"] = torch.where(uniform() < 0.5, 0.0, uniform())
    columns["jaw"] = (opening * (0.4 + 0.8 * uniform())).clamp(0, 1)
    return torch.stack([columns[name] for name in STATE_RANGES], 1)


def _groups(seed: int, groups: int, states: int, size: int, world: World) -> Iterator[tuple[Tensor, ...]]:
    draw = torch.Generator().manual_seed(seed)
    apart = size // min(size, _CELLS)
    middle = slice(apart // 2, None, apart)
    for group in range(groups):
        first = HELD_OUT_IDENTITIES + (seed * groups + group) * _GROUP
        values = draw_states(states, draw)
        shown = [render(draw_identity(first + person, world), values, size, device="cpu") for person in range(_GROUP)]
        yield (
            torch.stack([(one.image * 255).round().byte() for one in shown]),
            torch.stack([((one.eyes + one.mouth).clamp(0, 1)[:, 0] * 255).round().byte() for one in shown]),
            torch.stack([_content(one)[..., middle, middle].half() for one in shown]),
            values,
        )


def _content(shown: Rendering) -> Tensor:
    return torch.cat([shown.coordinates, _LAYERS_APART * shown.layers], 1)
