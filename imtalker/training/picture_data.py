"""Where a renderer's training takes its batches from: the avatars, or a folder of clips.

A batch follows from the number of its step alone, and is the same however many processes share it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from imtalker.avatars.identity import World
from imtalker.training.avatar_pictures import AvatarPool
from imtalker.training.chance import chance
from imtalker.training.picture_clips import TRAINED_ON, PictureClips, ReadPicture, find_clips
from imtalker.training.pictures import PictureBatch
from imtalker.training.share import ALONE, Share

# Avatars that validate: pools of seeds below zero have identities that no training draws.
_HELD_OUT_SEED, _HELD_OUT_GROUPS, _HELD_OUT_STATES = -1, 4, 6


class PictureData(Protocol):
    """A source of batches, in equal parts."""

    def parts(self, step: int, wanted: Sequence[int], count: int) -> list[PictureBatch]:
        """The ``wanted`` ones of ``count`` equal parts of a step's batch."""

    def held_out(self, references: int) -> PictureBatch | None:
        """Always the same batch of what is never trained on, a target for each reference; None if there is none."""


class AvatarPictures:
    """Procedural avatars; new ones are drawn every ``steps`` steps and at those of ``anew``, and kept in ``folder``."""

    def __init__(
        self,
        folder: Path,
        size: int,
        *,
        seed: int,
        references: int,
        targets: int,
        strangers: float,
        world: World,
        groups: int,
        states: int,
        steps: int,
        anew: Sequence[int] = (),
        share: Share = ALONE,
    ) -> None:
        """``references`` avatars in a batch with ``targets`` pictures to make of each; see `AvatarPool`."""
        self._folder, self._size, self._seed, self._world, self._share = folder, size, seed, world, share
        self._references, self._targets, self._strangers = references, targets, strangers
        self._groups, self._states, self._steps, self._anew = groups, states, steps, anew
        self._pool: tuple[int, AvatarPool] | None = None

    def parts(self, step: int, wanted: Sequence[int], count: int) -> list[PictureBatch]:
        draw = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        pool = self._pool_of(step // self._steps + bisect_right(self._anew, step))
        batch = pool.batch(self._references, self._targets, draw, self._strangers)
        return [part_of(batch, index, count) for index in wanted]

    def held_out(self, references: int) -> PictureBatch:
        path = self._folder / "held_out.safetensors"
        pool = AvatarPool.kept(path, _HELD_OUT_SEED, _HELD_OUT_GROUPS, _HELD_OUT_STATES, self._size, self._world)
        return pool.batch(references, 1, torch.Generator().manual_seed(0), self._strangers)

    def _pool_of(self, number: int) -> AvatarPool:
        if self._pool is None or self._pool[0] != number:
            self._pool = None
            seed = self._seed * 1000 + number
            path = self._folder / f"{seed}.safetensors"
            if not self._share.first:
                self._share.wait()
            pool = AvatarPool.kept(path, seed, self._groups, self._states, self._size, self._world)
            if self._share.first:
                self._share.wait()
            self._pool = number, pool
        return self._pool[1]


class ClipPictures:
    """A folder in the published layout. Each row has chance of its own, so a process reads only its own rows."""

    def __init__(self, root: Path, read: ReadPicture, *, seed: int, rows: int) -> None:
        """Raises PictureClipError when there are too few clips to train on."""
        self._clips = PictureClips(root, "train", read)
        enough = len(find_clips(root)) >= TRAINED_ON + 2
        self._others = PictureClips(root, "validation", read) if enough else None
        self._seed, self._rows = seed, rows

    def parts(self, step: int, wanted: Sequence[int], count: int) -> list[PictureBatch]:
        each = self._rows // count
        return [
            _joined([self._clips.batch(1, chance(self._seed, step, part * each + row)) for row in range(each)])
            for part in wanted
        ]

    def held_out(self, references: int) -> PictureBatch | None:
        return None if self._others is None else self._others.batch(references, chance(0))


def part_of(batch: PictureBatch, index: int, count: int) -> PictureBatch:
    """Part ``index`` of ``count`` equal ones, by references, with their targets. Raises ValueError for a remainder."""
    if len(batch.reference) % count:
        raise ValueError(f"a batch of {len(batch.reference)} references can't be cut into {count} equal parts")
    if count == 1:
        return batch

    def cut(values: Any) -> Any:
        tensors = {field.name: getattr(values, field.name) for field in fields(values)}
        return replace(values, **{k: x.chunk(count)[index] for k, x in tensors.items() if isinstance(x, Tensor)})

    part: PictureBatch = cut(batch)
    return part if batch.truth is None else replace(part, truth=cut(batch.truth))


def placed(batch: PictureBatch, device: torch.device | str) -> PictureBatch:
    """The batch on a device, pictures with their channels last."""

    def place(values: Any) -> Any:
        moved = {name: x.to(device) for name, x in vars(values).items() if isinstance(x, Tensor)}
        return replace(values, **{name: as_channels_last(x) for name, x in moved.items()})

    moved: PictureBatch = place(batch)
    return moved if batch.truth is None else replace(moved, truth=place(batch.truth))


def as_channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _joined(rows: list[PictureBatch]) -> PictureBatch:
    def column(name: str) -> Tensor:
        return torch.cat([getattr(row, name) for row in rows])

    return PictureBatch(column("reference"), column("target"), column("negative"), column("face"))
