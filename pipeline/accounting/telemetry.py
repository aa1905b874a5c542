"""A run's numbers as Prometheus metrics, through Ray's own: every machine of a cluster offers them to be scraped.

Ray puts ``ray_`` before each name and adds tags of its own. The run's driver counts, as tasks come back to it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Protocol

STATUS, KIND, STAGE, PHASE = "status", "kind", "stage", "phase"

Times = Mapping[str, tuple[float, float]]
"""Stage -> seconds that its worker was busy with a task, and had waited for it."""


class Telemetry(Protocol):
    def queued(self, phase: str, tasks: int) -> None:
        """So many tasks of a phase (``media``, ``videos``) are to be done."""

    def worked(self, phase: str, times: Times) -> None:
        """One of them is through."""

    def item(self, status: str, kind: str, frames: int) -> None:
        """An item ended: ``ok`` or ``failed`` by a kind of error, with so many frames."""


class NoTelemetry:
    """For runs without Ray."""

    def queued(self, phase: str, tasks: int) -> None:
        return

    def worked(self, phase: str, times: Times) -> None:
        return

    def item(self, status: str, kind: str, frames: int) -> None:
        return


class RayTelemetry:
    """Counters of the Ray that this process is connected to.

    The queue's depth is two counters, because Ray forgets a gauge that has not changed since it was last read.
    """

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        self._items = Counter("imtalker_items_total", "items that ended", tag_keys=(STATUS, KIND))
        self._frames = Counter("imtalker_frames_total", "frames rendered")
        self._busy = Counter("imtalker_stage_busy_seconds_total", "work of a stage's actors", tag_keys=(STAGE,))
        self._waiting = Counter(
            "imtalker_stage_waiting_seconds_total", "time between two tasks of a stage's actors", tag_keys=(STAGE,)
        )
        self._queued = Counter("imtalker_tasks_queued_total", "tasks that are to be done", tag_keys=(PHASE,))
        self._done = Counter("imtalker_tasks_done_total", "tasks that are through", tag_keys=(PHASE,))

    def queued(self, phase: str, tasks: int) -> None:
        if tasks:
            self._queued.inc(tasks, tags={PHASE: phase})

    def worked(self, phase: str, times: Times) -> None:
        self._done.inc(tags={PHASE: phase})
        for stage, (busy_s, waiting_s) in times.items():
            for counter, seconds in ((self._busy, busy_s), (self._waiting, waiting_s)):
                if seconds > 0:
                    counter.inc(seconds, tags={STAGE: stage})

    def item(self, status: str, kind: str, frames: int) -> None:
        self._items.inc(tags={STATUS: status, KIND: kind})
        if frames:
            self._frames.inc(frames)


def open_telemetry() -> Telemetry:
    """Ray's, where this process is connected to one."""
    ray = sys.modules.get("ray")
    return RayTelemetry() if ray is not None and ray.is_initialized() else NoTelemetry()
