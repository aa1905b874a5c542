"""A training of the renderer on avatars, from its settings to its checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imtalker.avatars.identity import World
from imtalker.config import RendererConfig
from imtalker.renderer.renderer import Renderer
from imtalker.training.avatar_pictures import AvatarPool
from imtalker.training.discriminator import TwoScales
from imtalker.training.loop import Report, train
from imtalker.training.norms import add_norms
from imtalker.training.perceptual import PerceptualLoss, Structure
from imtalker.training.pictures import PictureBatch
from imtalker.training.renderer import RendererTrainer, RendererWeights


@dataclass(frozen=True)
class RendererRun:
    """Settings. Rates follow a warm-up, then a cosine to ``floor``; helpers fade linearly up to ``helped`` steps."""

    renderer: RendererConfig
    steps: int
    seed: int = 0
    references: int = 8
    """Avatars in a batch."""
    targets: int = 2
    """Pictures to make of each."""
    strangers: float = 0.5
    """How often another avatar drives."""
    learning_rate: float = 1e-3
    equalised_rate: float = 10.0
    floor: float = 2e-5
    warmup: int = 200
    weights: RendererWeights = field(
        default_factory=lambda: RendererWeights(1.0, 0.5, 0.05, 0.0, 0.0, routing=0.1, readout=0.2)
    )
    helped: int = 6000
    norms: bool = True
    """See `imtalker.training.norms`."""
    average: float = 0.999
    precision: str = "float32"
    world: World = "full"
    pool_groups: int = 400
    pool_states: int = 12
    pool_steps: int = 10_000
    """After so many steps new avatars are drawn."""
    discriminator_width: int = 64


def train_renderer(run: RendererRun, folder: Path, device: torch.device | str, report: Report) -> RendererTrainer:
    """Train, or go on training, in ``folder``."""
    torch.manual_seed(run.seed)
    renderer = Renderer(run.renderer).to(device)
    if run.norms:
        add_norms(renderer)
    trainer = RendererTrainer(
        renderer,
        TwoScales(run.renderer.resolution, run.discriminator_width).to(device),
        PerceptualLoss(Structure()).to(device),
        weights=run.weights,
        learning_rate=run.learning_rate,
        precision=getattr(torch, run.precision),
        average=run.average,
        equalised_rate=run.equalised_rate,
    )
    pools: dict[int, AvatarPool] = {}

    def batches(step: int) -> list[PictureBatch]:
        number = step // run.pool_steps
        if number not in pools:
            pools.clear()
            seed = run.seed * 1000 + number
            path = folder / "pools" / f"{seed}.safetensors"
            size = run.renderer.resolution
            pools[number] = AvatarPool.kept(path, seed, run.pool_groups, run.pool_states, size, run.world)
        draw = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
        batch = pools[number].batch(run.references, run.targets, draw, run.strangers)
        return [_placed(batch, device)]

    def before(step: int) -> None:
        trainer.set_learning_rate(scheduled(step, run.steps, run.learning_rate, run.floor, run.warmup))
        left = max(0.0, 1 - step / run.helped)
        trainer.weights = replace(run.weights, routing=left * run.weights.routing, readout=left * run.weights.readout)

    train(trainer, batches, folder, steps=run.steps, before=before, report=report)
    return trainer


def scheduled(step: int, steps: int, rate: float, floor: float, warmup: int) -> float:
    """A linear warm-up, then half a cosine down to ``floor``."""
    if step < warmup:
        return rate * (step + 1) / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return floor + (rate - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))


def _placed(batch: PictureBatch, device: torch.device | str) -> PictureBatch:
    def place(values: Any) -> Any:
        moved = {name: x.to(device) for name, x in vars(values).items() if isinstance(x, Tensor)}
        return replace(values, **{name: as_channels_last(x) for name, x in moved.items()})

    return replace(place(batch), truth=None if batch.truth is None else place(batch.truth))


def as_channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
