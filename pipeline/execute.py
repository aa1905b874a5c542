"""Executors: the same stages over the same tasks, in this process or elsewhere (`pipeline.on_ray`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

from pipeline.config import RunSettings
from pipeline.errors import ErrorRecord
from pipeline.locks.claims import Claims
from pipeline.machines.resources import Placement, Pool, place
from pipeline.provenance.certificate import Signing
from pipeline.retry import Retries
from pipeline.stages.base import Stage
from pipeline.talker import TalkerInfo
from pipeline.tasks import Task

T = TypeVar("T", bound=Task)
Out = TypeVar("Out", bound=Task, covariant=True)


@dataclass(frozen=True)
class Context:
    """What every stage is constructed with."""

    settings: RunSettings
    info: TalkerInfo
    output: str
    signing: Signing | None = None


class Beside(Protocol[Out]):
    """A task on its way through one stage, beside whatever else runs."""

    def done(self) -> bool: ...

    def wait(self) -> None: ...

    def result(self) -> Out | None:
        """The task that came out, once it is done; None if its worker died."""


class Runner(Protocol[T]):
    """What sends tasks of one kind through stages, as `Executor.run` does."""

    def run(
        self, tasks: Sequence[T], stages: Sequence[type[Stage[T]]], *, alone: bool = False
    ) -> Generator[T, None, None]: ...


class Executor(Protocol):
    placement: Placement

    def run(
        self, tasks: Sequence[T], stages: Sequence[type[Stage[T]]], *, alone: bool = False
    ) -> Generator[T, None, None]:
        """Send tasks through the stages; yield them as they come out, in any order. Closing it ends the workers.

        A task whose worker died again and again is missing from what comes out; the caller compares. ``alone`` keeps
        tasks apart, so that a poisonous one takes no other with it.
        """

    def beside(self, stage: type[Stage[T]], task: T, *, alone: bool = False) -> Beside[T]:
        """Send one task through one stage that needs no GPU and few processors, at once and where there is room.

        A task whose worker dies is tried once more, unless it is ``alone``.
        """


class InProcess:
    """One task after the other in this process."""

    def __init__(self, context: Context, available: dict[str, float]) -> None:
        self._context = context
        self.placement = place(context.settings.resources, available)

    def run(
        self, tasks: Sequence[T], stages: Sequence[type[Stage[T]]], *, alone: bool = False
    ) -> Generator[T, None, None]:
        if not tasks:
            return
        built = [_build(stage, self._context, self.placement) for stage in stages]
        for task in tasks:
            yield from _onward(task, built)

    def beside(self, stage: type[Stage[T]], task: T, *, alone: bool = False) -> Beside[T]:
        return _Here(_build(stage, self._context, self.placement).run(task))


@dataclass(frozen=True)
class _Here(Generic[T]):
    """What went through a stage in this process."""

    task: T

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        return

    def result(self) -> T:
        return self.task


def _onward(task: T, stages: Sequence[Stage[T]]) -> Iterator[T]:
    """A task through stages, one after the other; what goes on from each, likewise."""
    if not stages:
        yield task
        return
    first, *others = stages
    for onward in first.onward(first.run(task)):
        yield from _onward(onward, others)


@contextmanager
def in_process(context: Context) -> Iterator[Executor]:
    """An executor for one item, with this machine's processors and GPUs."""
    available = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    yield InProcess(context, available)


def _build(stage: type[Stage[T]], context: Context, placement: Placement) -> Stage[T]:
    return stage(*stage_arguments(context, placement[stage.name]))


def stage_arguments(context: Context, pool: Pool) -> tuple[Any, ...]:
    """What a stage is constructed with. Only the render stage has encoders, and signs."""
    common = (context.settings, context.info, context.output, pool.threads)
    if pool.encoders is None:
        return common
    return (*common, pool.encoders) if context.signing is None else (*common, pool.encoders, context.signing)


def through(
    tasks: Sequence[T],
    stages: Sequence[type[Stage[T]]],
    executor: Runner[T],
    each: Callable[[T], None],
    claims: Claims,
    say: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> list[T]:
    """Send tasks through stages, those that got lost once more, alone; returns those that got lost for good.

    A task that an earlier run died over, when it was alone, is not sent at all: see `pipeline.locks.claims`. The caller
    releases the claims of what is returned, once it has recorded the failure. ``say`` is told of lost workers.
    ``check`` is asked before each round, and raises if the run may not go on.
    """
    if not tasks:
        return []
    set_aside = claims.left()
    given_up = [task for task in tasks if task.key in set_aside]
    left = [task for task in tasks if task.key not in set_aside]
    for alone in (False, True):
        if not left:
            break
        check()
        done: set[str] = set()
        # Closed, whatever `each` raises: the workers of a run that ends are gone before anyone else needs their place.
        with closing(executor.run(claims.marked(left) if alone else left, stages, alone=alone)) as through_them:
            for task in through_them:
                done.add(task.key)
                each(task)
                if alone:
                    claims.release(task.key)
        left = missing(left, done)
        if left and not alone:
            left = [_lost_once(task, stages[0].name) for task in left]
            say(f"{len(left)} were lost with their workers, and are tried again, each by itself")
    return given_up + left


def _lost_once(task: T, stage: str) -> T:
    """A copy that remembers it, under the first stage: nobody saw in which of them its worker died."""
    moment = time.time()
    once = Retries(count=1, first=moment, last=moment, message="its worker died, or the machine it was on")
    return task.model_copy(update={"retries": {**task.retries, stage: once.joined(task.retries.get(stage))}})


def lost(stage: str) -> ErrorRecord:
    """The error of a task that got lost for good."""
    return ErrorRecord(
        "infrastructure",
        stage,
        "its worker died twice while it was being made",
        "run again; if it dies again, look at the worker's log for this item (memory? a damaged file?)",
    )


def missing(tasks: Iterable[T], done: set[str]) -> list[T]:
    """The tasks that did not come back."""
    return [task for task in tasks if task.key not in done]
