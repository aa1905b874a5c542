"""Starting a training: here, or on the workers of Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from imtalker.training.loop import Watch
from imtalker.training.renderer_run import POOLS
from pipeline.machines.device import pick_device
from pipeline.training.journal import Journal, tensorboard_installed
from pipeline.training.progress import TrainingProgress
from pipeline.training.record import check_record, has_checkpoint
from pipeline.training.settings import AVATARS, GeneratorSettings, RendererSettings
from pipeline.training.work import work
from pipeline.training.workers import train_on_workers

Event = TypeVar("Event")


def start(settings: RendererSettings | GeneratorSettings, console: Console) -> None:
    """Train, or go on with the training in ``settings.output``.

    Raises CannotRun when it can't, and KeyboardInterrupt when it was stopped; what was learnt is kept.
    """
    kind = "renderer" if isinstance(settings, RendererSettings) else "generator"
    check_record(kind, settings)
    with TrainingProgress(console, kind, settings.steps, settings.progress_seconds) as progress:
        if isinstance(settings, RendererSettings):
            _say_of_pictures(settings, progress)
        say_where(settings.output, progress)
        if settings.workers > 1:
            train_on_workers(settings, progress)
            return
        with Journal(settings.output) as journal:
            watch = Watch(
                stepped=to_each(journal.stepped, progress.stepped),
                validated=to_each(journal.validated, progress.validated),
            )
            work(settings, pick_device(settings.device), to_each(journal.reported, progress.reported), watch)


def _say_of_pictures(settings: RendererSettings, progress: TrainingProgress) -> None:
    if settings.vgg is None:
        progress.say("perceptual loss: gradients and local contrast, as no VGG-19 is given (vgg)")
    pools, avatars = settings.output / POOLS, settings.avatars
    if settings.data == AVATARS and not pools.exists():
        progress.say(f"drawing {4 * avatars.groups} avatars in {avatars.states} states each; they are kept in {pools}")


def say_where(output: Path, progress: TrainingProgress) -> None:
    """Say what is not written, and that a training goes on."""
    if not tensorboard_installed():
        progress.say("TensorBoard is not installed (pip install 'imtalker[train]'): log.jsonl alone is written")
    if has_checkpoint(output):
        progress.say(f"going on from the checkpoint in {output}")


def to_each(*told: Callable[[Event], None]) -> Callable[[Event], None]:
    """One callback for several."""

    def tell(event: Event) -> None:
        for one in told:
            one(event)

    return tell
