"""A training on several processes, through Ray Train: one part of every batch each, gradients averaged.

Ray Train starts the workers and their torch process group, and replaces workers that died if `restarts` allows it; they
go on from the checkpoint. The output must be a folder that every worker sees.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imtalker.training.loop import LOG, VALIDATION, Progress, Validation, Watch
from imtalker.training.share import Share
from imtalker.training.stop import until_signal
from pipeline.errors import CannotRun
from pipeline.machines.cluster import connected
from pipeline.training.journal import Journal
from pipeline.training.progress import TrainingProgress
from pipeline.training.settings import GeneratorSettings, RendererSettings
from pipeline.training.work import work

STOP = "stop"
"""A file in the output that tells the workers to end."""

_MOST_CPUS = 8.0
_LOOKS_EVERY_S = 0.5

_KINDS: dict[str, type[RendererSettings] | type[GeneratorSettings]] = {
    "renderer": RendererSettings,
    "generator": GeneratorSettings,
}


def train_on_workers(settings: RendererSettings | GeneratorSettings, progress: TrainingProgress) -> None:
    """Train on ``settings.workers`` workers, and show what the first of them logs.

    Raises CannotRun when they can't be placed or fail, and KeyboardInterrupt when it was stopped.
    """
    stop = settings.output / STOP
    stop.unlink(missing_ok=True)
    with connected(settings.address), until_signal() as signalled:
        fit = _Fit(settings)
        fit.start()
        shown = Shown(settings, progress)
        while fit.is_alive():
            fit.join(_LOOKS_EVERY_S)
            shown.update()
            if signalled():
                stop.touch()
        shown.update()
        stop.unlink(missing_ok=True)
        if fit.failure is not None:
            raise explained(fit.failure) from fit.failure
        if signalled():
            raise KeyboardInterrupt


def placement(settings: RendererSettings | GeneratorSettings, cluster: Mapping[str, float]) -> dict[str, float]:
    """CPUs and GPUs of a worker on a cluster with these resources; raises CannotRun where they aren't there."""
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = float(settings.device != "cpu" and cluster.get("GPU", 0) > 0)
    cpus = settings.cpus_per_worker or max(1.0, min(_MOST_CPUS, cluster.get("CPU", 0) // settings.workers))
    for name, each in (("CPU", cpus), ("GPU", gpus)):
        if each * settings.workers > cluster.get(name, 0):
            raise CannotRun(
                f"{settings.workers} workers need {each * settings.workers:g} {name}s, the cluster has "
                f"{cluster.get(name, 0):g}; ask for fewer workers, or set {name.lower()}s_per_worker"
            )
    return {"CPU": cpus, "GPU": gpus}


class _Fit(threading.Thread):
    """Ray Train's run, beside the main thread, which shows progress and listens to signals."""

    def __init__(self, settings: RendererSettings | GeneratorSettings) -> None:
        super().__init__(name="ray-train", daemon=True)
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        resources = placement(settings, ray.cluster_resources())
        kind = next(name for name, model in _KINDS.items() if isinstance(settings, model))
        self.failure: BaseException | None = None
        self._trainer = TorchTrainer(
            _worker,
            train_loop_config={"kind": kind, "settings": settings.model_dump(mode="json")},
            scaling_config=ScalingConfig(
                num_workers=settings.workers, use_gpu=resources["GPU"] > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name="workers",
                storage_path=str(settings.output / "ray"),
                failure_config=FailureConfig(max_failures=settings.restarts),
            ),
        )

    def run(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as exc:  # noqa: BLE001  (the main thread raises it)
            self.failure = exc


def _worker(config: dict[str, Any]) -> None:
    """What each process runs; the first keeps the journal."""
    from ray.train.torch import get_device

    settings = _KINDS[config["kind"]].model_validate(config["settings"])
    share = Share.of_group()
    stop = settings.output / STOP
    device = get_device()
    try:
        with Journal(settings.output) as journal:
            watch = Watch(journal.stepped, journal.validated) if share.first else None
            work(settings, device, journal.reported, watch, stop.exists, share)
    except KeyboardInterrupt:
        # The driver knows that it asked for it; to Ray this is a run that ended well.
        return


class Shown:
    """The log of the first worker, as far as it was shown."""

    def __init__(self, settings: RendererSettings | GeneratorSettings, progress: TrainingProgress) -> None:
        self._path: Path = settings.output / LOG
        self._steps = settings.steps
        self._progress = progress
        self._file, self._offset = 0, 0
        self._last = max(map(_place, self._lines()), default=(0, False))
        progress.stepped(self._last[0])

    def update(self) -> None:
        """Show the lines that are new."""
        new = [line for line in self._lines() if _place(line) > self._last]
        for line in new:
            step, values = line["step"], {name: value for name, value in line.items() if name != "step"}
            if "steps_a_second" in values:
                rate = values.pop("steps_a_second")
                self._progress.stepped(step)
                self._progress.reported(Progress(step, self._steps, values, rate))
            else:
                losses = {name.removeprefix(VALIDATION): value for name, value in values.items()}
                self._progress.validated(Validation(step, losses))
        self._last = max(map(_place, new), default=self._last)

    def _lines(self) -> list[dict[str, Any]]:
        """Whole lines since the last call; of all the file if another has taken its place, as when a run goes on."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            number = os.fstat(file.fileno()).st_ino
            if number != self._file:
                self._file, self._offset = number, 0
            file.seek(self._offset)
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        self._offset += sum(map(len, lines))
        return [json.loads(line) for line in lines]


def _place(line: dict[str, Any]) -> tuple[int, bool]:
    """Where a line stands in the log: its step, and whether it is of the validation behind it."""
    return line["step"], "steps_a_second" not in line


def explained(failure: BaseException) -> BaseException:
    """A failed run as one line where a worker said what can be done, else in Ray's own words."""
    from ray.train import ControllerError, WorkerGroupError

    if isinstance(failure, WorkerGroupError):
        worker, cause = min(failure.worker_failures.items(), key=lambda item: item[0])
        if isinstance(cause, CannotRun):
            return cause
        return CannotRun(f"training worker {worker} failed: {type(cause).__name__}: {cause}")
    if isinstance(failure, ControllerError):
        return CannotRun(f"Ray Train could not go on: {failure.controller_failure}")
    return failure
