"""When the workers of each stage were at work, and when they waited for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_STAGES = ("crop", "features", "motion", "render")
_BINS = 80

Actor = tuple[str, str, int]
"""Stage, machine and process."""


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
    """Of a run."""

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

    @classmethod
    def of_dict(cls, facts: Mapping[str, Any]) -> Timeline:
        """What `as_dict` gave. Raises TypeError or KeyError for anything else."""
        stages = [StageTime(**stage) for stage in facts["stages"]]
        return cls(started=facts["started"], seconds=facts["seconds"], stages=stages)


def timeline(worked: Mapping[Actor, Iterable[float]]) -> Timeline | None:
    """Of each worker the start and the end of each of its tasks, in turn, as Unix times. None without any."""
    tasks = {actor: np.array(times, dtype=np.float64).reshape(-1, 2) for actor, times in worked.items()}
    return _timeline(tasks) if tasks else None


def _timeline(worked: Mapping[Actor, np.ndarray]) -> Timeline:
    start = min(float(intervals[:, 0].min()) for intervals in worked.values())
    end = max(float(intervals[:, 1].max()) for intervals in worked.values())
    edges = np.linspace(start, max(end, start + 1e-3), _BINS + 1)
    order = {stage: at for at, stage in enumerate(_STAGES)}
    by_stage: defaultdict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for (stage, *_), intervals in worked.items():
        by_stage[stage].append(_busy_and_there(intervals, edges))
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
