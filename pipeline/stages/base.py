"""What every stage shares: one task in, the same task out, and errors as values."""

from __future__ import annotations

import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch

from pipeline.config import RunSettings
from pipeline.errors import error_record
from pipeline.locks.claims import claim
from pipeline.retry import Retries, noting
from pipeline.storage import Store
from pipeline.talker import TalkerInfo
from pipeline.tasks import Task, Worker

T = TypeVar("T", bound=Task)

COLUMN = "task"
"""The one column of the data sets: tasks as JSON."""


class Stage(ABC, Generic[T]):
    """One step of the way of an item.

    Subclasses implement `process`, which may raise anything: the exception becomes the task's typed error here and
    nowhere else. Later stages pass such a task through, so no task touches a neighbour.
    """

    name: ClassVar[str]
    task_type: type[T]

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int) -> None:
        # Of the cells that attention does not look at next to nothing is left, and an x86 takes many times as long for
        # such numbers. Before the first operation, since torch's threads take it over when they start.
        torch.set_flush_denormal(True)
        self.settings = settings
        self.info = info
        self.store = Store(output, settings.storage_options, settings.retries)
        self.threads = threads

    @abstractmethod
    def process(self, task: T) -> None:
        """Fill in the task. Raises whatever goes wrong."""

    def finish(self, task: T) -> None:
        """Called for every task at the end, failed ones included."""

    def onward(self, task: T) -> list[T]:
        """What goes on to the next stage in its place."""
        return [task]

    def run(self, task: T) -> T:
        return self.run_all([task])[0]

    def run_all(self, tasks: Sequence[T]) -> list[T]:
        """Every task through the stage; they come back in their order."""
        for task in tasks:
            self.enter(task)
            if task.error is None:
                with self.attempt(task):
                    claim(self.store, task, self.name)
                    self.process(task)
            self.leave(task)
        return list(tasks)

    def enter(self, task: T) -> None:
        """Note where and when the task's work begins."""
        # The thread count is part of the result's numerics, and in-process runs share it between stages.
        torch.set_num_threads(self.threads)
        task.seconds[self.name] = 0.0
        task.workers[self.name] = Worker(
            pid=os.getpid(),
            node=platform.node(),
            gpus=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            gpu=gpu_name() if self.settings.device != "cpu" else "",
            threads=self.threads,
            started_at=time.time(),
        )

    def leave(self, task: T) -> None:
        """Note when it ended, and `finish` it."""
        task.workers[self.name].ended_at = time.time()
        self.finish(task)

    @contextmanager
    def attempt(self, task: T) -> Iterator[None]:
        """Work on one task: the one place that turns its exception into a value."""
        retries = task.retries.setdefault(self.name, Retries())
        with self.timed([task]), noting(retries):
            try:
                yield
            except Exception as exc:  # noqa: BLE001  (see above)
                task.error = error_record(exc, self.name)
        if not retries.count:
            del task.retries[self.name]

    @contextmanager
    def timed(self, tasks: Sequence[T]) -> Iterator[None]:
        """Add the block's time to the tasks, an equal share to each."""
        started = time.perf_counter()
        yield
        for task in tasks:
            share = (time.perf_counter() - started) / len(tasks)
            task.seconds[self.name] = round(task.seconds[self.name] + share, 4)

    def __call__(self, batch: dict[str, Sequence[str]]) -> dict[str, np.ndarray]:
        """Ray Data's way in: a batch with the JSON column `COLUMN`, and a batch of what goes on."""
        done = self.run_all([self.task_type.model_validate_json(text) for text in batch[COLUMN]])
        texts = [onward.model_dump_json() for task in done for onward in self.onward(task)]
        return {COLUMN: np.array(texts, dtype=object)}


@cache
def gpu_name() -> str:
    """Of the GPU that this process sees first; empty without GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
