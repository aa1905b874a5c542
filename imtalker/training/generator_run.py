"""A training of the motion generator, from its settings to its checkpoint and its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch

from imtalker.checkpoints import load_audio_encoder, load_generator, save_generator
from imtalker.config import GeneratorConfig
from imtalker.generator.generator import MotionGenerator
from imtalker.seeded import seeded_state_dict
from imtalker.training.chance import chance
from imtalker.training.flow_matching import Dropout, MotionBatch, training_losses
from imtalker.training.generator import EMA_DECAY, TERMS, GeneratorTrainer
from imtalker.training.loop import Pace, Report, Validation, Watch, train
from imtalker.training.losses import Distance
from imtalker.training.motion_data import MotionData, placed
from imtalker.training.optimisers import Kind
from imtalker.training.renderer import LEARNING_RATE
from imtalker.training.share import ALONE, Share

WEIGHTS = "generator.safetensors"
"""The averaged weights in a run's folder; `imtalker.load_generator` reads them."""

_VALIDATED = 64
"""Runs that validation looks at."""


@dataclass(frozen=True)
class GeneratorRun:
    """Settings. The learning rate falls along a cosine."""

    generator: GeneratorConfig
    steps: int
    seed: int = 0
    batch: int = 16
    """Runs of frames in an update."""
    learning_rate: float = LEARNING_RATE
    optimiser: Kind = "adam"
    dropout: Dropout = field(default_factory=Dropout)
    seam_weight: float = 0.0
    """Of `imtalker.training.losses.seam_loss`; the published training is without."""
    distance: Distance = "absolute"
    average: float = EMA_DECAY
    precision: str = "float32"
    accumulate: int = 1
    """Parts that a batch is worked through in."""


def train_generator(
    run: GeneratorRun,
    folder: Path,
    device: torch.device | str,
    report: Report,
    *,
    data: MotionData,
    build: Callable[[], MotionGenerator],
    watch: Watch | None = None,
    pace: Pace | None = None,
    stop: Callable[[], bool] = lambda: False,
    share: Share = ALONE,
) -> GeneratorTrainer:
    """Train, or go on training, in ``folder``.

    ``build`` makes the network a new run begins with: `fresh` or `started`. For the rest see `loop.train`.

    Raises ValueError for a batch that can't be cut, and what ``build`` and `loop.train` raise.
    """
    parts = run.accumulate * share.size
    if run.batch % parts:
        raise ValueError(
            f"a batch of {run.batch} can't be cut into {parts} equal parts "
            f"({run.accumulate} in turn on each of {share.size} workers)"
        )
    torch.manual_seed(run.seed)
    trainer = GeneratorTrainer(
        build().to(device),
        total_steps=run.steps,
        seed=run.seed,
        dropout=run.dropout,
        learning_rate=run.learning_rate,
        decay=run.average,
        precision=getattr(torch, run.precision),
        kind=run.optimiser,
        seam_weight=run.seam_weight,
        distance=run.distance,
        share=share,
    )
    averaged = cast(MotionGenerator, trainer.average.module)

    def batches(step: int) -> list[MotionBatch]:
        return [placed(part, device) for part in data.parts(step, share.parts(run.accumulate), parts)]

    shown = data.held_out(_VALIDATED) if share.first else None

    def validate() -> Validation:
        assert shown is not None  # noqa: S101  (the first process alone validates)
        return validated(averaged, placed(shown, device), trainer.steps)

    train(
        trainer,
        batches,
        folder,
        steps=run.steps,
        report=report,
        watch=watch,
        pace=pace,
        validate=validate,
        export=lambda: save_generator(averaged, folder / WEIGHTS),
        stop=stop,
        share=share,
        device=device,
    )
    return trainer


@torch.no_grad()
def validated(generator: MotionGenerator, batch: MotionBatch, step: int) -> Validation:
    """The terms at fixed times with fixed noise, no condition dropped; the total is of the published ones."""
    losses = training_losses(generator, batch, chance(0), Dropout(0.0, 0.0))
    return Validation(step, {name: getattr(losses, name).item() for name in TERMS})


def started(path: Path, config: GeneratorConfig, audio_encoder: Path | None = None) -> MotionGenerator:
    """The network in a file, with an audio encoder from a hub folder if the file has none.

    Raises CheckpointError.
    """
    generator = MotionGenerator(config)
    # Copied: what was loaded may be mapped to the file.
    generator.load_state_dict(load_generator(path, audio_encoder, config=config).state_dict())
    return generator


def fresh(config: GeneratorConfig, audio_encoder: Path | int) -> MotionGenerator:
    """New weights beside the audio encoder that made the clips' features: a hub folder, or the seed of a stand-in.

    Raises CheckpointError.
    """
    generator = MotionGenerator(config)
    if isinstance(audio_encoder, int):
        encoder = generator.audio_encoder
        names = {f"audio_encoder.{key}": x for key, x in encoder.state_dict().items()}
        generator.load_state_dict(seeded_state_dict(names, audio_encoder), strict=False)
    else:
        load_audio_encoder(generator, audio_encoder)
    return generator
