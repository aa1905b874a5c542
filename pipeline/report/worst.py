"""Which items to look at first, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.metrics.gates import LIPS_NOT_FROM_AUDIO
from pipeline.report.columns import Column
from pipeline.report.distribution import FAR, deviations
from pipeline.report.source import Source
from pipeline.tasks import SMALLER_BATCHES

FLAG_POINTS = 10.0
_KNOWN_FLAGS = {LIPS_NOT_FROM_AUDIO: 0.0, "limit": 0.0, SMALLER_BATCHES: 1.0}
"""Flags that say how an item was made, not that something is wrong."""
_UNJUDGED = "unjudged:"
"""Before the name of a metric that could not be measured."""
MOST_POINTS = 20.0
"""That one number can give."""
_RETRY_POINTS = 1.0


@dataclass(frozen=True)
class Suspect:
    """An item that is ok, with something unusual about it."""

    row: int
    points: float
    reasons: list[str]


class Ranking:
    """Points of every item that is ok: the more, the sooner somebody should look.

    A flag gives 10 (0 or 1 where it only says how the item was made), a number that is far from the median of the run
    its robust deviations, at most 20, and a second attempt 1.
    """

    def __init__(self, source: Source, columns: Sequence[tuple[Column, np.ndarray]]) -> None:
        ok = np.array([status == "ok" for status in source.column("status")], dtype=bool)
        self.points = np.zeros(len(ok))
        self._flags: defaultdict[int, list[str]] = defaultdict(list)
        self._retries: dict[int, int] = {}
        self._far: list[tuple[Column, np.ndarray, np.ndarray, float]] = []
        for row, flags in enumerate(source.column("flags")):
            for flag in flags or ():
                self.points[row] += _flag_points(flag)
                self._flags[row].append(str(flag))
        for row, attempts in enumerate(source.column("attempts")):
            if attempts and attempts > 1:
                self.points[row] += _RETRY_POINTS
                self._retries[row] = attempts - 1
        for column, values in columns:
            if column.judges:
                judged = np.where(ok, values, np.nan)
                self._add(column, values, deviations(judged, column), judged)
        self.points[~ok] = 0.0

    def _add(self, column: Column, values: np.ndarray, far: np.ndarray, judged: np.ndarray) -> None:
        size = np.abs(np.nan_to_num(far))
        if not (size > FAR).any():
            return
        self.points += np.where(size > FAR, np.minimum(size, MOST_POINTS), 0.0)
        median = float(np.median(judged[np.isfinite(judged)]))
        self._far.append((column, values, np.nan_to_num(far), median))

    def worst(self, most: int) -> list[Suspect]:
        """The items with the most points, worst first; equal ones in the manifest's order."""
        order = np.argsort(-self.points, kind="stable")[:most]
        return [Suspect(int(row), float(self.points[row]), self.reasons(int(row))) for row in order if self.points[row]]

    @property
    def suspects(self) -> int:
        """How many items have points."""
        return int((self.points > 0).sum())

    def reasons(self, row: int) -> list[str]:
        """What is unusual about an item, the strongest first."""
        found: list[tuple[float, str]] = [(_flag_points(flag), f"flag {flag}") for flag in self._flags.get(row, ())]
        for column, values, far, median in self._far:
            if abs(far[row]) > FAR:
                found.append((min(abs(far[row]), MOST_POINTS), _reason(column, values[row], far[row], median)))
        if row in self._retries:
            times = "once" if self._retries[row] == 1 else f"{self._retries[row]} times"
            found.append((_RETRY_POINTS, f"tried again {times}"))
        return [text for _, text in sorted(found, key=lambda one: -one[0])]


def _flag_points(flag: str) -> float:
    return _KNOWN_FLAGS.get(flag, 1.0 if flag.startswith(_UNJUDGED) else FLAG_POINTS)


def _reason(column: Column, value: Any, far: float, median: float) -> str:
    unit = f" {column.unit}" if column.unit else ""
    side = "above" if far > 0 else "below"
    return f"{column.name} {value:.4g}{unit}: {abs(far):.1f} deviations {side} the median {median:.4g}"
