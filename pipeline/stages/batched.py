"""Stages whose networks take several items at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from pipeline.stages.base import Stage
from pipeline.talker import Arrays
from pipeline.tasks import Task

T = TypeVar("T", bound=Task)
W = TypeVar("W")


class BatchedStage(Stage[T], Generic[T, W]):
    """A stage in three steps, the middle one for many tasks together.

    A task that fails in a step of its own drops out there. Should the common step fail, every task is computed
    alone, so that the failure is that of the task that caused it.
    """

    @abstractmethod
    def begin(self, task: T) -> W | None:
        """Read what the networks need for a task; None when there is nothing left to compute."""

    @abstractmethod
    def compute(self, works: Sequence[W]) -> list[Arrays]:
        """The networks' results for several tasks; none depends on the others."""

    @abstractmethod
    def end(self, task: T, work: W, found: Arrays) -> None:
        """Keep a task's result."""

    def process(self, task: T) -> None:
        work = self.begin(task)
        if work is not None:
            self._alone(task, work)

    def run_all(self, tasks: Sequence[T]) -> list[T]:
        if len(tasks) == 1:
            return super().run_all(tasks)
        works: dict[str, W] = {}
        for task in tasks:
            self.enter(task)
            if task.error is None:
                with self.attempt(task):
                    work = self.begin(task)
                    if work is not None:
                        works[task.key] = work
        ready = [task for task in tasks if task.key in works]
        results = self._together(ready, [works[task.key] for task in ready])
        for index, task in enumerate(ready):
            with self.attempt(task):
                if results is None:
                    self._alone(task, works[task.key])
                else:
                    self.end(task, works[task.key], results[index])
        for task in tasks:
            self.leave(task)
        return list(tasks)

    def _together(self, tasks: Sequence[T], works: Sequence[W]) -> list[Arrays] | None:
        """Results of all, or None if they can't be had together. The time is shared out equally."""
        if not works:
            return []
        found: list[Arrays] | None = None
        with self.timed(tasks):
            try:
                found = self.compute(works)
            except Exception:  # noqa: BLE001  (whose fault it is shows when each is computed alone)
                found = None
        return found

    def _alone(self, task: T, work: W) -> None:
        self.end(task, work, self.compute([work])[0])
