"""Executors: the same stages over the same tasks, on Ray Data or in this process."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

from pipeline.config import RunSettings
from pipeline.errors import CannotRun, ErrorRecord
from pipeline.locks.claims import Claims
from pipeline.machines.cluster import connected
from pipeline.machines.resources import PATIENT_THREADS, Placement, Pool, place
from pipeline.provenance.certificate import Signing
from pipeline.retry import Retries
from pipeline.stages.base import COLUMN, Stage
from pipeline.stages.batched import BatchedStage
from pipeline.talker import TalkerInfo
from pipeline.tasks import Task

T = TypeVar("T", bound=Task)
Out = TypeVar("Out", bound=Task, covariant=True)

# How often Ray runs a task again whose actor died, in company; alone not at all. Ray Data's default is for ever: one
# poisonous item would never end.
_RETRIES_AFTER_DEATH = 1

_GPU_ITEMS_IN_FLIGHT = 32
"""Tasks that a stage on a GPU gets at a time if its networks take several."""


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


class OnRay:
    """Ray Data: an actor pool for each stage, streaming between them, GPUs pinned by Ray."""

    def __init__(self, context: Context) -> None:
        """Needs a connection to Ray. Raises CannotRun when the stages can't be placed."""
        import ray

        self._context = context
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.placement = place(context.settings.resources, *machines)

    def run(
        self, tasks: Sequence[T], stages: Sequence[type[Stage[T]]], *, alone: bool = False
    ) -> Generator[T, None, None]:
        import ray

        if not tasks:
            return
        _configure_data()
        # Small blocks: what Ray redoes or loses with an actor is one block.
        blocks = len(tasks) if alone else min(len(tasks), 2000)
        # Kept by Ray alone, and not here too.
        data = ray.data.from_items([{COLUMN: task.model_dump_json()} for task in tasks], override_num_blocks=blocks)
        for stage in stages:
            data = self._with_stage(data, stage, alone)
        task_type = stages[0].task_type
        try:
            for row in data.iter_rows():
                yield task_type.model_validate_json(row[COLUMN])
        except (ray.exceptions.RayError, RuntimeError) as exc:
            raise CannotRun(f"the run was stopped by Ray: {_cause(exc)}") from exc

    def beside(self, stage: type[Stage[T]], task: T, *, alone: bool = False) -> Beside[T]:
        import ray

        pool = self.placement[stage.name]
        remote = ray.remote(_once).options(
            # The actors have all processors.
            num_cpus=0,
            max_retries=0 if alone else _RETRIES_AFTER_DEATH,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": {**_environment(pool), "CUDA_VISIBLE_DEVICES": ""}},
        )
        return _There(remote.remote(stage, _arguments(self._context, pool), task.model_dump_json()), stage.task_type)

    def _with_stage(self, data: Any, stage: type[Stage[T]], alone: bool) -> Any:
        from ray.data import ActorPoolStrategy

        pool = self.placement[stage.name]
        at_once = 1 if alone else pool.items_at_once
        with warnings.catch_warnings():
            # Ray has no other way yet to bound the retries of an actor that dies.
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            return data.map_batches(
                stage,
                fn_constructor_args=_arguments(self._context, pool),
                batch_size=1 if alone else self._batch_size(stage, pool),
                compute=ActorPoolStrategy(
                    size=pool.actors,
                    # One more lies ready, except where its neighbour may be poisonous.
                    max_tasks_in_flight_per_actor=1 if alone else at_once + 1,
                    max_concurrent_calls_per_actor=at_once,
                    enable_true_multi_threading=at_once > 1,
                ),
                num_cpus=pool.num_cpus,
                num_gpus=pool.num_gpus,
                runtime_env={"env_vars": _environment(pool)},
                max_task_retries=0 if alone else _RETRIES_AFTER_DEATH,
                max_restarts=-1,
                # An item may go on in parts.
                udf_modifying_row_count=True,
            )

    def _batch_size(self, stage: type[Stage[T]], pool: Pool) -> int:
        if not issubclass(stage, BatchedStage):
            return 1
        return self._context.settings.items_in_flight or (_GPU_ITEMS_IN_FLIGHT if pool.num_gpus else 1)


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


@dataclass(frozen=True)
class _There(Generic[T]):
    """What goes through a stage in a process of Ray's."""

    reference: Any
    task_type: type[T]

    def done(self) -> bool:
        import ray

        return bool(ray.wait([self.reference], timeout=0)[0])

    def wait(self) -> None:
        import ray

        ray.wait([self.reference])

    def result(self) -> T | None:
        import ray

        try:
            return self.task_type.model_validate_json(ray.get(self.reference))
        except ray.exceptions.RayError:
            return None


def _once(stage: type[Stage[T]], arguments: tuple[Any, ...], text: str) -> str:
    """A task through a stage that is built for it."""
    return stage(*arguments).run(stage.task_type.model_validate_json(text)).model_dump_json()


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


@contextmanager
def on_ray(context: Context, address: str | None = None) -> Iterator[Executor]:
    """An executor on the cluster at ``address``, or on one of this machine's own that ends with the block."""
    with connected(address):
        yield OnRay(context)


def _environment(pool: Pool) -> dict[str, str]:
    patience = {name: os.environ.get(name, value) for name, value in PATIENT_THREADS.items()}
    # Ray leaves every GPU visible to an actor that asked for none.
    return patience if pool.num_gpus else patience | {"CUDA_VISIBLE_DEVICES": ""}


def _build(stage: type[Stage[T]], context: Context, placement: Placement) -> Stage[T]:
    return stage(*_arguments(context, placement[stage.name]))


def _arguments(context: Context, pool: Pool) -> tuple[Any, ...]:
    """What a stage is constructed with. Only the render stage has encoders, and signs."""
    common = (context.settings, context.info, context.output, pool.threads)
    if pool.encoders is None:
        return common
    return (*common, pool.encoders) if context.signing is None else (*common, pool.encoders, context.signing)


def _configure_data() -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    # A row to a block: what comes out of a stage in one batch is spread over the actors of the next.
    context.target_max_block_size = 1
    # A block whose actor died too often is dropped; the run finds what is missing and tries it alone.
    context.max_errored_blocks = -1
    logger = logging.getLogger("ray.data")
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if handler.name == "console":
            # A stack trace for each block that was dropped; `through` says how many in a line, Ray's log file has them.
            handler.setLevel(logging.CRITICAL)


def _cause(exc: BaseException | None) -> str:
    """The innermost reason that says anything, in one line; Ray wraps what a worker raised several times."""
    reason = type(exc).__name__
    while exc is not None:
        # Ray gives the worker's traceback as text; its last line is the exception.
        lines = str(exc).strip().splitlines()
        reason = lines[-1] if lines else reason
        exc = getattr(exc, "cause", None) or exc.__cause__
    return reason.removeprefix(f"{CannotRun.__module__}.{CannotRun.__name__}: ")


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
