"""The loop of every training: steps, checkpoints, a log; a run that was stopped goes on exactly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from imtalker.training.share import ALONE, Share
from imtalker.training.stop import until_signal

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
VALIDATION = "validation/"
"""What the names of validation losses begin with in the log."""


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


@dataclass(frozen=True)
class Validation:
    """What the averaged weights do with data that is not trained on."""

    step: int
    losses: dict[str, float]
    pictures: Tensor | None = None
    """A contact sheet, float32 [3, H, W] in 0..1."""


@dataclass(frozen=True)
class Pace:
    """After how many steps something is done; also at the end."""

    report: int = 50
    checkpoint: int = 500
    validate: int = 1000


@dataclass(frozen=True)
class Watch:
    """Who is told about a run."""

    stepped: Callable[[int], None] = lambda step: None
    """After every step, with the number of steps done; also once before the first."""
    validated: Callable[[Validation], None] = lambda validation: None


Report = Callable[[Progress], None]


def train(
    trainer: Trainer,
    batches: Callable[[int], Sequence[Any]],
    folder: Path,
    *,
    steps: int,
    before: Callable[[int], None] = lambda step: None,
    report: Report = lambda progress: None,
    watch: Watch | None = None,
    pace: Pace | None = None,
    validate: Callable[[], Validation] | None = None,
    export: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
    share: Share = ALONE,
    device: torch.device | str = "cpu",
) -> None:
    """Train up to ``steps``, going on from the checkpoint in ``folder`` if there is one.

    ``batches`` makes the batches of a step from its number alone, and ``before`` sets what changes with the steps, so
    that a run in stretches is the run in one piece. The log gets a line for each report and each validation. A
    checkpoint is replaced as a whole or not at all; ``export``, which writes the weights for use, comes with it.

    SIGINT, SIGTERM and a ``stop`` that turns true end the run between two steps: the checkpoint is written, then
    KeyboardInterrupt raised. An error ends it with the last checkpoint. Of several processes (``share``, which talk
    over ``device``) the first alone writes, reports and validates.
    """
    watch, pace = watch or Watch(), pace or Pace()
    folder.mkdir(parents=True, exist_ok=True)
    resume(trainer, folder)
    if share.first:
        _forget(folder / LOG, trainer.steps)
    watch.stepped(trainer.steps)
    sums: dict[str, float] = {}
    counted, started = 0, time.perf_counter()
    kept: int | None = None

    def keep() -> int:
        if share.first:
            # Weights that can't be used, such as NaN, are found here, and the last good checkpoint stays.
            export()
            save(trainer, folder)
        return trainer.steps

    with until_signal() as signalled:
        while trainer.steps < steps:
            before(trainer.steps)
            for name, value in trainer.step(batches(trainer.steps)).items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            watch.stepped(trainer.steps)
            if _due(trainer.steps, pace.report, steps):
                rate = counted / (time.perf_counter() - started)
                terms = share.means({name: value / counted for name, value in sums.items()}, device)
                progress = Progress(trainer.steps, steps, terms, rate)
                if share.first:
                    _log(folder / LOG, trainer.steps, {"steps_a_second": rate, **terms})
                    report(progress)
                sums, counted, started = {}, 0, time.perf_counter()
            if validate is not None and share.first and _due(trainer.steps, pace.validate, steps):
                paused = time.perf_counter()
                validation = validate()
                _log(folder / LOG, trainer.steps, {VALIDATION + name: x for name, x in validation.losses.items()})
                watch.validated(validation)
                started += time.perf_counter() - paused
            if trainer.steps % pace.checkpoint == 0:
                kept = keep()
            if share.any(signalled() or stop(), device):
                if kept != trainer.steps:
                    keep()
                raise KeyboardInterrupt
    if kept != trainer.steps:
        keep()


def save(trainer: Trainer, folder: Path) -> None:
    """Write the checkpoint, as a whole or not at all."""
    partial = folder / f"{CHECKPOINT}.part"
    torch.save(trainer.state_dict(), partial)
    partial.replace(folder / CHECKPOINT)


def steps_done(folder: Path) -> int:
    """Of the checkpoint in ``folder``; 0 where there is none."""
    path = folder / CHECKPOINT
    return int(torch.load(path, map_location="cpu", weights_only=True)["steps"]) if path.exists() else 0


def resume(trainer: Trainer, folder: Path) -> bool:
    """Take up the checkpoint in ``folder``; False when there is none."""
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    trainer.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return True


def _due(step: int, every: int, steps: int) -> bool:
    return step % every == 0 or step == steps


def _log(path: Path, step: int, values: dict[str, float]) -> None:
    line = {"step": step} | {name: float(f"{value:.6g}") for name, value in values.items()}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _forget(path: Path, step: int) -> None:
    """Drop lines of steps that come after the checkpoint, and a line that was cut off: those steps are done again."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        partial = path.with_suffix(".part")
        partial.write_text("".join(kept))
        partial.replace(path)
