"""When the workers of each stage were at work, and when they waited for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.ledger import STAGES, Record
from pipeline.record_index import RecordIndex
from pipeline.report.source import Source
from pipeline.tasks import Worker

_BINS = 80

Interval = tuple[float, float]
"""Start and end, Unix time."""


@dataclass(frozen=True)
class StageTime:
    """A stage in a run."""

    stage: str
    workers: int
    busy_s: float
    """Of all workers: with at least one task in hand."""
    waiting_s: float
    """Of all workers: without one, between their first and their last."""
    busy: list[float]
    """Workers busy on average in each part of the run's time."""
    waiting: list[float]


@dataclass(frozen=True)
class Timeline:
    """The last run that made something."""

    started: float
    """Unix time when its first task began, by that worker's clock."""
    seconds: float
    stages: list[StageTime]
    """Those that had work, in order."""

    @property
    def edges(self) -> np.ndarray:
        """Seconds from the start that bound the parts: [bins + 1]."""
        return np.linspace(0.0, self.seconds, len(self.stages[0].busy) + 1)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_timeline(source: Source) -> Timeline | None:
    """From the records of an output; None where none tells when its stages worked. Raises CannotRun."""
    return timeline(record for _, record in RecordIndex(source.store).records())


def timeline(records: Iterable[Record]) -> Timeline | None:
    """Of the records of the run with the highest fence: items that earlier ones made are left out."""
    last = -1
    # Files that many items name stand in the record of each.
    seen: set[tuple[str, str, int, float]] = set()
    worked: defaultdict[tuple[str, str, int], list[Interval]] = defaultdict(list)
    for record in records:
        fence = record.fence or 0
        if fence < last or record.copied_from is not None or not record.workers:
            continue
        if fence > last:
            last = fence
            seen.clear()
            worked.clear()
        for stage, worker in record.workers.items():
            if (interval := _interval(worker)) is None:
                continue
            task = (stage, worker.node, worker.pid, interval[0])
            if task not in seen:
                seen.add(task)
                worked[stage, worker.node, worker.pid].append(interval)
    return _timeline(worked) if worked else None


def _interval(worker: Worker) -> Interval | None:
    if worker.started_at is None or worker.ended_at is None:
        return None
    return worker.started_at, max(worker.started_at, worker.ended_at)


def _timeline(worked: dict[tuple[str, str, int], list[Interval]]) -> Timeline:
    start = min(interval[0] for intervals in worked.values() for interval in intervals)
    end = max(interval[1] for intervals in worked.values() for interval in intervals)
    edges = np.linspace(start, max(end, start + 1e-3), _BINS + 1)
    order = {stage: at for at, stage in enumerate(STAGES)}
    by_stage: defaultdict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for (stage, *_), intervals in worked.items():
        by_stage[stage].append(_busy_and_there(np.array(intervals), edges))
    stages = []
    for stage in sorted(by_stage, key=lambda name: order.get(name, len(order))):
        busy, there = (np.sum(parts, axis=0) for parts in zip(*by_stage[stage], strict=True))
        waiting = np.maximum(there - busy, 0.0)
        stages.append(
            StageTime(
                stage=stage,
                workers=len(by_stage[stage]),
                busy_s=round(float(busy.sum()), 2),
                waiting_s=round(float(waiting.sum()), 2),
                busy=_average(busy, edges),
                waiting=_average(waiting, edges),
            )
        )
    return Timeline(started=start, seconds=round(float(edges[-1] - edges[0]), 3), stages=stages)


def _busy_and_there(intervals: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds that one worker was busy and there in each bin; ``intervals`` [n, 2] may overlap."""
    intervals = intervals[np.argsort(intervals[:, 0])]
    # The end of all that came before: an actor may have several items in hand.
    before = np.maximum.accumulate(np.concatenate([[-np.inf], intervals[:-1, 1]]))
    starts = np.maximum(intervals[:, 0], before)
    ends = np.maximum(intervals[:, 1], starts)
    total = np.cumsum(ends - starts)
    moments = np.stack([starts, ends], axis=1).ravel()
    busy = np.stack([total - (ends - starts), total], axis=1).ravel()
    there = np.clip(edges, intervals[0, 0], intervals[:, 1].max())
    return np.diff(np.interp(edges, moments, busy)), np.diff(there)


def _average(seconds: np.ndarray, edges: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in seconds / np.diff(edges)]
