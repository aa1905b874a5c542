"""Progress of a training for people, on stderr: a bar on a terminal, one line an interval elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn

from imtalker.training.loop import Progress, Validation
from pipeline.progress import ConsoleProgress


class TrainingProgress(ConsoleProgress):
    """Steps done, the loss, speed, and the time that is left."""

    def __init__(self, console: Console, name: str, steps: int, interval_s: float) -> None:
        task, state = TextColumn("{task.description}"), TextColumn("{task.fields[state]}")
        super().__init__(console, task, BarColumn(), MofNCompleteColumn(), state)
        self._name, self._steps, self._interval_s = name, steps, interval_s
        self._task: TaskID | None = None
        self._said = float("-inf")

    def stepped(self, step: int) -> None:
        """So many steps are done; the first call says where the run goes on."""
        if self._bars is None:
            return
        if self._task is None:
            self._task = self._bars.add_task(self._name, total=self._steps, completed=step, state="")
        self._bars.update(self._task, completed=step)

    def reported(self, progress: Progress) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, state=_state(progress))
            return
        now = time.monotonic()
        if now - self._said >= self._interval_s or progress.step == progress.steps:
            self._said = now
            left = f", about {duration(progress.seconds_left)} left" if progress.step < progress.steps else ""
            self.say(f"{self._name}: {progress.step}/{progress.steps}, {_state(progress)}{left}")

    def validated(self, validation: Validation) -> None:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in validation.losses.items())
        self.say(f"{self._name}: validation at {validation.step}: {losses}")


def duration(seconds: float) -> str:
    """In the two largest units: ``2 h 5 min``."""
    whole = round(seconds)
    for size, unit, smaller, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {name}"
    return f"{whole} s"


def _state(progress: Progress) -> str:
    total = progress.terms.get("total")
    return ("" if total is None else f"loss {total:.4g}, ") + f"{progress.steps_a_second:.2f} steps/s"
