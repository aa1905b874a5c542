"""The whole pipeline on a small manifest: its rate, and how long its stages stood still."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

from imtalker.checkpoints import save_generator, save_renderer
from imtalker.engine.bench.measure import threads
from imtalker.engine.bench.networks import stand_ins
from imtalker.presets import find_preset
from pipeline.bench.material import rows
from pipeline.bench.options import BenchOptions
from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.execute import Beside, Context, Executor, in_process
from pipeline.machines.resources import PHASES, Placement
from pipeline.on_ray import on_ray
from pipeline.progress import RunProgress
from pipeline.run import load_manifest, prepare, run
from pipeline.stages.base import Stage
from pipeline.tasks import AssetTask, ItemTask, Task

T = TypeVar("T", bound=Task)

ENCODE = "encode"
"""The encoder beside the renderer: no stage of its own, but measured like one."""


@dataclass(frozen=True)
class StageUse:
    """What a stage's actors did while its phase ran."""

    stage: str
    actors: int
    tasks: int
    busy_s: float
    """Of all actors together."""
    window_s: float
    """From the phase's first task on an actor to the end of its last."""

    @property
    def waited_share(self) -> float:
        """Part of the window that its actors stood still, 0..1."""
        return min(1.0, max(0.0, 1 - self.busy_s / (self.window_s * self.actors))) if self.window_s else 0.0


@dataclass(frozen=True)
class WholeRun:
    """A run that has ended well."""

    executor: str
    wall_s: float
    """From the call to the results table."""
    frames: int
    audio_s: float
    """Length of all items together."""
    portraits: int
    """Different ones."""
    uses: list[StageUse]

    @property
    def windows_s(self) -> dict[str, float]:
        """By stage."""
        return {use.stage: use.window_s for use in self.uses}

    @property
    def steady_s(self) -> float:
        """The phases' windows together."""
        return sum(self.windows_s[phase[0]] for phase in PHASES)

    @property
    def startup_s(self) -> float:
        """The rest: Ray, the workers and their weights at the start of each phase, plan and results."""
        return self.wall_s - self.steady_s


@dataclass
class _Watched:
    """An executor that keeps what comes out."""

    inner: Executor
    placement: Placement
    seen: list[Task] = field(default_factory=list)

    def beside(self, stage: type[Stage[T]], task: T, *, alone: bool = False) -> Beside[T]:
        return self.inner.beside(stage, task, alone=alone)

    def run(
        self, tasks: Sequence[T], stages: Sequence[type[Stage[T]]], *, alone: bool = False
    ) -> Generator[T, None, None]:
        for task in self.inner.run(tasks, stages, alone=alone):
            self.seen.append(task)
            yield task


def run_whole(options: BenchOptions) -> WholeRun:
    """Make the videos of a manifest of `material.rows` in a fresh temporary output.

    Raises CannotRun when Ray was asked for and is missing, and when an item fails.
    """
    on_cluster = options.executor == "ray" or (options.executor == "auto" and find_spec("ray") is not None)
    with TemporaryDirectory(prefix="imtalker-bench-") as name:
        folder = Path(name)
        manifest = folder / "manifest.parquet"
        pq.write_table(pa.Table.from_pylist(list(rows(folder, options.items, options.item_seconds))), manifest)
        settings = _settings(options, folder)
        watched: list[_Watched] = []

        @contextmanager
        def watching(context: Context) -> Iterator[Executor]:
            with (on_ray if on_cluster else in_process)(context) as executor:
                watched.append(_Watched(executor, executor.placement))
                yield watched[-1]

        started = time.perf_counter()
        # Stages set their own thread counts, in this process too.
        with RunProgress(Console(quiet=True), settings.progress_seconds) as progress, threads(torch.get_num_threads()):
            info = prepare(settings)
            summary = run(
                load_manifest(str(manifest), settings), settings, info, str(folder / "out"), watching, progress
            )
        wall_s = time.perf_counter() - started
    if summary.failed:
        failure = summary.first_failures[0]
        raise CannotRun(
            f"{summary.failed} items of the benchmark failed, the first in {failure['stage']}: {failure['message']}"
        )
    (executor,) = watched
    return WholeRun(
        "Ray" if on_cluster else "this process, one item after the other",
        wall_s,
        summary.frames,
        options.items * options.item_seconds,
        sum(isinstance(task, AssetTask) and task.kind == "portrait" for task in executor.seen),
        stage_uses(executor.seen, executor.placement),
    )


def stage_uses(tasks: Sequence[Task], placement: Placement) -> list[StageUse]:
    """How busy the actors of each stage were, from the times that the tasks carry."""
    uses = []
    for phase in PHASES:
        spans = [
            (worker.started_at, worker.ended_at)
            for task in tasks
            for stage, worker in task.workers.items()
            if stage in phase and worker.started_at is not None and worker.ended_at is not None
        ]
        window = max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0.0
        for stage in phase:
            pool = placement[stage]
            if stage != "render":
                busy = [task.seconds[stage] for task in tasks if stage in task.seconds]
                uses.append(StageUse(stage, pool.actors, len(busy), sum(busy), window))
                continue
            # Items overlap in a renderer: what counts is how long each had the device, and its encoders.
            videos = [task.video for task in tasks if isinstance(task, ItemTask) and task.video]
            rendering, encoding = (sum(video[name] for video in videos) for name in ("render_s", "encode_s"))
            uses.append(StageUse(stage, pool.actors, len(videos), rendering, window))
            uses.append(StageUse(ENCODE, pool.actors * (pool.encoders or 1), len(videos), encoding, window))
    return uses


def _settings(options: BenchOptions, folder: Path) -> RunSettings:
    networks = options.networks
    given: dict[str, Any] = {
        "model": networks.model,
        "max_seconds": options.item_seconds,
        "precision": options.run_precision,
        "batch_size": networks.batch_size,
        "device": networks.device,
        "resources": {stage: {"threads": networks.threads} for phase in PHASES for stage in phase},
        "download": False,
    }
    preset = find_preset(networks.model)
    if preset.weights != "seeded":
        renderer, generator = stand_ins(preset)
        paths = {part: folder / f"{part}.safetensors" for part in ("renderer", "generator")}
        save_renderer(renderer, paths["renderer"])
        save_generator(generator, paths["generator"])
        given["weights"] = {part: str(path) for part, path in paths.items()}
    return RunSettings(**given)
