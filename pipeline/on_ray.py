"""Stages on Ray: actor pools on a cluster or on this machine, which tasks stream through."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pipeline.errors import CannotRun
from pipeline.execute import Beside, Context, Executor, stage_arguments
from pipeline.machines.cluster import connected
from pipeline.machines.resources import PATIENT_THREADS, Pool, place
from pipeline.stages.base import COLUMN, Stage
from pipeline.stages.batched import BatchedStage
from pipeline.tasks import Task

T = TypeVar("T", bound=Task)

# How often Ray runs a task again whose actor died, in company; alone not at all. Ray Data's default is for ever: one
# poisonous item would never end.
_RETRIES_AFTER_DEATH = 1

_ITEMS_PER_ACTOR = 2000
"""Until the actors are started anew: as long as they live, Ray's books in the driver grow by 14 KB an item."""

_GPU_ITEMS_IN_FLIGHT = 32
"""Tasks that a stage on a GPU gets at a time if its networks take several."""


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
        if not tasks:
            return
        _configure_data()
        at_once = max(self.placement[stage.name].actors for stage in stages) * _ITEMS_PER_ACTOR
        for start in range(0, len(tasks), at_once):
            yield from self._streamed(tasks[start : start + at_once], stages, alone)

    def _streamed(self, tasks: Sequence[T], stages: Sequence[type[Stage[T]]], alone: bool) -> Generator[T, None, None]:
        """With actors of their own."""
        import ray

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
        return _There(
            remote.remote(stage, stage_arguments(self._context, pool), task.model_dump_json()), stage.task_type
        )

    def _with_stage(self, data: Any, stage: type[Stage[T]], alone: bool) -> Any:
        from ray.data import ActorPoolStrategy

        pool = self.placement[stage.name]
        at_once = 1 if alone else pool.items_at_once
        with warnings.catch_warnings():
            # Ray has no other way yet to bound the retries of an actor that dies.
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            return data.map_batches(
                stage,
                fn_constructor_args=stage_arguments(self._context, pool),
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


@contextmanager
def on_ray(context: Context, address: str | None = None) -> Iterator[Executor]:
    """An executor on the cluster at ``address``, or on one of this machine's own that ends with the block."""
    with connected(address):
        yield OnRay(context)


def _environment(pool: Pool) -> dict[str, str]:
    patience = {name: os.environ.get(name, value) for name, value in PATIENT_THREADS.items()}
    # Ray leaves every GPU visible to an actor that asked for none.
    return patience if pool.num_gpus else patience | {"CUDA_VISIBLE_DEVICES": ""}


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
