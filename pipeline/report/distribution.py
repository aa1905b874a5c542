"""How the values of a column are spread, and which lie far from the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.report.columns import Column

FAR = 3.5
"""From so many robust deviations on a value is an outlier (Iglewicz and Hoaglin, How to Detect and Handle Outliers,
1993)."""
FEWEST = 8
"""Values from which on outliers are looked for."""
_MOST_BINS = 40
_SHOWN_EACH_SIDE = 3


@dataclass(frozen=True)
class Outlier:
    row: int
    value: float
    deviations: float
    """From the median, in robust standard deviations; negative below it."""


@dataclass(frozen=True)
class Distribution:
    """Of a column's finite values."""

    column: Column
    count: int
    not_finite: int
    """Values that are there but infinite."""
    minimum: float
    p05: float
    median: float
    p95: float
    maximum: float
    mean: float
    edges: np.ndarray
    """[bins + 1], ascending; the bins leave out what lies beyond."""
    counts: np.ndarray
    """[bins] items."""
    below: int
    """Items left of the first bin."""
    above: int
    outliers: int
    shown: list[Outlier] = field(default_factory=list)
    """The farthest outliers, some of each side that is bad, lowest value first."""

    @property
    def constant(self) -> bool:
        return self.minimum == self.maximum

    def as_dict(self) -> dict[str, Any]:
        facts = {
            name: getattr(self, name)
            for name in ("count", "not_finite", "minimum", "p05", "median", "p95", "maximum", "mean", "outliers")
        }
        about = {"group": self.column.group, "unit": self.column.unit, "better": self.column.better}
        return {"column": self.column.name, **about, **facts}


def distribution(column: Column, values: np.ndarray) -> Distribution:
    """``values``: float64, NaN where there is none; at least one is finite."""
    there = np.isfinite(values)
    known = values[there]
    low, p05, median, p95, high = (float(q) for q in np.quantile(known, (0, 0.05, 0.5, 0.95, 1)))
    far = deviations(values, column)
    bad = np.flatnonzero(np.abs(np.nan_to_num(far)) > FAR)
    edges = _edges(known[np.abs(np.nan_to_num(far[there])) <= FAR], known)
    counts, _ = np.histogram(known, edges)
    return Distribution(
        column=column,
        count=int(there.sum()),
        not_finite=int(np.isinf(values).sum()),
        minimum=low,
        p05=p05,
        median=median,
        p95=p95,
        maximum=high,
        mean=float(known.mean()),
        edges=edges,
        counts=counts,
        below=int((known < edges[0]).sum()),
        above=int((known > edges[-1]).sum()),
        outliers=len(bad),
        shown=_farthest(bad, values, far),
    )


def deviations(values: np.ndarray, column: Column) -> np.ndarray:
    """Signed distance from the median in robust standard deviations; NaN where there is no finite value.

    The deviation is 1.4826 times the median absolute one; where that is 0, as when most values are equal, 1.2533 times
    the mean absolute one. Distances on the good side of a column that has one are 0, and all are where values are few.
    """
    there = np.isfinite(values)
    known = values[there]
    if len(known) < FEWEST:
        return np.where(there, 0.0, np.nan)
    away = values - np.median(known)
    distance = np.abs(away[there])
    scale = 1.4826 * np.median(distance) or 1.2533 * distance.mean()
    # Sums of equal numbers differ in their last digits.
    if scale <= 1e-9 * np.abs(known).max():
        return np.where(there, 0.0, np.nan)
    far = np.where(there, away / scale, np.nan)
    if column.better is not None:
        good = far > 0 if column.better == "higher" else far < 0
        far[good] = 0.0
    return far


def _farthest(rows: np.ndarray, values: np.ndarray, far: np.ndarray) -> list[Outlier]:
    # A stable order, so that equal values give the same items each time.
    order = rows[np.argsort(far[rows], kind="stable")]
    low = [row for row in order if far[row] < 0][:_SHOWN_EACH_SIDE]
    high = [row for row in order if far[row] > 0][-_SHOWN_EACH_SIDE:]
    return [Outlier(int(row), float(values[row]), float(far[row])) for row in (*low, *high)]


def _edges(usual: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Bins over what is not far away (Freedman and Diaconis' width); whole numbers have bins of whole numbers."""
    usual = usual if len(usual) else known
    low, high = float(usual.min()), float(usual.max())
    whole = bool((known == np.round(known)).all())
    if low == high:
        half = 0.5 if whole else abs(low) * 0.05 or 0.5
        return np.array([low - half, high + half])
    quarter, three_quarters = np.quantile(usual, (0.25, 0.75))
    width = 2 * (three_quarters - quarter) / len(usual) ** (1 / 3)
    bins = int(np.clip(np.ceil((high - low) / width) if width > 0 else 10, 5, _MOST_BINS))
    if whole:
        step = max(int(np.ceil((high - low + 1) / bins)), 1)
        return np.arange(low - 0.5, high + step, step)
    return np.linspace(low, high, bins + 1)
