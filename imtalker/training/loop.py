"""The loop of every training: steps, checkpoints, a log; a run that was stopped goes on exactly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


class Trainer(Protocol):
    """What can be trained (`RendererTrainer`, `GeneratorTrainer`)."""

    steps: int

    def step(self, batches: Sequence[Any]) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Progress:
    """Where a run is. ``terms`` are means since the last one."""

    step: int
    steps: int
    terms: dict[str, float]
    steps_a_second: float

    @property
    def seconds_left(self) -> float:
        return (self.steps - self.step) / self.steps_a_second


Report = Callable[[Progress], None]


def train(
    trainer: Trainer,
    batches: Callable[[int], Sequence[Any]],
    folder: Path,
    *,
    steps: int,
    before: Callable[[int], None] = lambda step: None,
    report: Report = lambda progress: None,
    report_every: int = 50,
    checkpoint_every: int = 500,
) -> None:
    """Train up to ``steps``, going on from the checkpoint in ``folder`` if there is one.

    ``batches`` makes the batches of a step from its number alone, and ``before`` sets what changes with the steps, so
    that a run in stretches is the run in one piece. The log gets a line for each report. A checkpoint is replaced as a
    whole or not at all; it is written every ``checkpoint_every`` steps, at the end, and when the run is interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    resume(trainer, folder)
    sums: dict[str, float] = {}
    counted, started = 0, time.perf_counter()
    try:
        while trainer.steps < steps:
            before(trainer.steps)
            for name, value in trainer.step(batches(trainer.steps)).items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            if trainer.steps % report_every == 0 or trainer.steps == steps:
                rate = counted / (time.perf_counter() - started)
                progress = Progress(trainer.steps, steps, {k: v / counted for k, v in sums.items()}, rate)
                _log(folder / LOG, progress)
                report(progress)
                sums, counted, started = {}, 0, time.perf_counter()
            if trainer.steps % checkpoint_every == 0:
                save(trainer, folder)
    finally:
        save(trainer, folder)


def save(trainer: Trainer, folder: Path) -> None:
    """Write the checkpoint, as a whole or not at all."""
    partial = folder / f"{CHECKPOINT}.part"
    torch.save(trainer.state_dict(), partial)
    partial.replace(folder / CHECKPOINT)


def resume(trainer: Trainer, folder: Path) -> bool:
    """Take up the checkpoint in ``folder``; False when there is none."""
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    trainer.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return True


def _log(path: Path, progress: Progress) -> None:
    line = {"step": progress.step, "steps_a_second": progress.steps_a_second, **progress.terms}
    with path.open("a") as file:
        file.write(json.dumps({name: float(f"{value:.6g}") for name, value in line.items()}) + "\n")
