"""How long the workers of each stage worked, and how long they waited for work."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping

from pipeline.accounting.timeline import Actor
from pipeline.accounting.usage import Usage
from pipeline.tasks import Worker


class StageTimes:
    """How long the workers of each stage worked and waited, of tasks given in the order in which they began or ended.

    A worker waits between two tasks; before its first, while its networks are loaded, it isn't counted.
    """

    def __init__(self) -> None:
        self.usage: dict[str, Usage] = {}
        self.waiting_s: defaultdict[str, float] = defaultdict(float)
        self.worked: defaultdict[Actor, array[float]] = defaultdict(lambda: array("d"))
        """Of each worker the start and the end of each of its tasks, in turn, as Unix times."""
        self._last_end: dict[Actor, float] = {}

    def add(self, stage: str, usage: Usage, worker: Worker | None) -> float:
        """Count a task; the seconds that its worker had waited for it."""
        self.usage[stage] = self.usage.get(stage, Usage()) + usage
        if worker is None or worker.started_at is None or worker.ended_at is None:
            return 0.0
        key = (stage, worker.node, worker.pid)
        self.worked[key].extend((worker.started_at, worker.ended_at))
        before = self._last_end.get(key, worker.started_at)
        waited = max(worker.started_at - before, 0.0)
        self.waiting_s[stage] += waited
        self._last_end[key] = max(before, worker.ended_at)
        return waited

    def as_dict(self) -> dict[str, dict[str, float]]:
        """By stage: workers seen, seconds busy and waiting of all of them, and of CPUs and GPUs."""
        workers = Counter(stage for stage, _, _ in self._last_end)
        return {
            stage: {
                "workers": workers[stage],
                "busy_s": round(usage.busy_s, 2),
                "waiting_s": round(self.waiting_s[stage], 2),
                "cpu_s": round(usage.cpu_s, 2),
                "gpu_s": round(usage.gpu_s, 2),
            }
            for stage, usage in self.usage.items()
        }


def stage_lines(stages: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One line for each stage, for people."""
    return [
        f"{stage:<9}busy {facts['busy_s']:.1f} s, waiting {facts['waiting_s']:.1f} s, "
        f"{facts['workers']:.0f} workers, {facts['cpu_s']:.1f} CPU s, {facts['gpu_s']:.1f} GPU s"
        for stage, facts in stages.items()
    ]
