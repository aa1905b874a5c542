"""How a run grows with its GPUs: 1, 2 and 4 renderers that sleep as long as real ones would work.

GPUs and work are simulated; Ray Data, the actors, the tasks and the way they are handed out are the real ones. So what
is missing to the whole is what the engine itself loses.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from threading import Lock

from imtalker.engine.bench.measure import Measurement
from pipeline.config import RenderResources, Resources, RunSettings
from pipeline.execute import Context
from pipeline.machines.cluster import connected
from pipeline.on_ray import OnRay
from pipeline.stages.base import Stage
from pipeline.talker import TalkerInfo, info
from pipeline.tasks import AssetTask

RENDERERS = (1, 2, 4)
ITEMS = 96
WORK_S = 96.0
"""Of all items together: what one renderer takes if nothing is lost."""
_CPUS = 8
_START_S = 600


class SleepingRender(Stage[AssetTask]):
    """Has a device for one task at a time, as the render stage has, and sleeps on it."""

    name = "render"
    task_type = AssetTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int, encoders: int) -> None:
        super().__init__(settings, info, output, threads)
        self._device = Lock()

    def process(self, task: AssetTask) -> None:
        with self._device:
            began = time.time()
            time.sleep(task.facts["work_s"])
            task.facts["span"] = (began, time.time())


@dataclass(frozen=True)
class Scaling:
    """One run of the simulation."""

    renderers: int
    work_s: float
    """Of all items together."""
    makespan_s: float
    """From the first item's begin to the last one's end, all renderers standing ready at the begin."""
    shares: tuple[int, ...]
    """Items that each renderer made, in order of size."""

    @property
    def of_linear(self) -> float:
        """1: not a moment of any renderer was lost."""
        return self.work_s / (self.renderers * self.makespan_s)

    def row(self) -> Measurement:
        """``rate`` is the speed-up, ``ratio`` its part of the ideal one."""
        name = f"scaling, {self.renderers} renderer{'s' if self.renderers > 1 else ''}"
        return Measurement(name, self.work_s / self.makespan_s, "simulated GPU s", ratio=self.of_linear)


def work_of(items: int, work_s: float) -> list[float]:
    """Seconds of each item, the longest first as a run has them: from 5/3 of the mean down to 1/3 of it."""
    weights = [5.0 - 4.0 * index / max(items - 1, 1) for index in range(items)]
    return [weight * work_s / sum(weights) for weight in weights]


def measure_scaling(renderers: int, *, items: int = ITEMS, work_s: float = WORK_S) -> Scaling:
    """Run the simulation on a Ray of its own, which has so many GPUs by name. Raises CannotRun as a run does."""
    wish = RenderResources(actors=renderers, num_gpus=0.8, num_cpus=0.5, threads=1, encoders=1)
    settings = RunSettings(model="imtalker-tiny", resources=Resources(render=wish))
    tasks = [
        AssetTask(key=str(index), kind="audio", uri="", facts={"work_s": seconds})
        for index, seconds in enumerate(work_of(items, work_s))
    ]
    with TemporaryDirectory(prefix="imtalker-scaling-") as folder, connected(num_cpus=_CPUS, num_gpus=renderers):
        from ray.data import DataContext

        # Loading is no part of it; on few CPUs many renderers load one after the other.
        DataContext.get_current().wait_for_min_actors_s = _START_S
        done = list(OnRay(Context(settings, info(settings), folder)).run(tasks, (SleepingRender,)))
    return scaling(renderers, done)


def scaling(renderers: int, done: Sequence[AssetTask]) -> Scaling:
    """What the tasks of a run tell."""
    spans = [task.facts["span"] for task in done]
    made: dict[int, int] = {}
    for task in done:
        pid = task.workers["render"].pid
        made[pid] = made.get(pid, 0) + 1
    return Scaling(
        renderers,
        sum(task.facts["work_s"] for task in done),
        max(end for _, end in spans) - min(began for began, _ in spans),
        tuple(sorted(made.values(), reverse=True)),
    )


def bench_scaling() -> list[Measurement]:
    """A row for each number of renderers."""
    return [measure_scaling(renderers).row() for renderers in RENDERERS]
