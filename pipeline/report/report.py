"""All that a report says of a run, as plain facts; the page and the JSON are made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from heapq import nsmallest
from typing import Any

import numpy as np

from pipeline.report.columns import Column, numeric_columns
from pipeline.report.difference import Difference, difference
from pipeline.report.distribution import Distribution, distribution
from pipeline.report.failures import FailureGroup, failure_groups
from pipeline.report.glance import by_language, glance
from pipeline.report.source import Source
from pipeline.report.times import Times, read_times
from pipeline.report.worst import Ranking, Suspect

WORST = 200
"""Items of the list of those to look at first."""
WORST_WITH_PICTURE = 24
CONTACTS = 48
"""Videos of the contact sheet."""
GROUPS = 60
"""Classes of failures."""
STOPPED_WITH_PICTURE = 6
DISTRIBUTIONS = 80
"""Columns of numbers."""
PICTURES = 300
"""Pictures at most."""


@dataclass(frozen=True)
class Report:
    """Of one output. Rows are those of ``source.table``."""

    source: Source
    glance: dict[str, Any]
    languages: dict[str, Any] | None
    columns: list[tuple[Column, np.ndarray]]
    distributions: list[Distribution]
    columns_left_out: int
    worst: list[Suspect]
    suspects: int
    """Items with something unusual; the list shows the worst."""
    ranking: Ranking
    failures: list[FailureGroup]
    contacts: list[int]
    """Rows of a sample of the videos, in the manifest's order."""
    times: Times | None
    difference: Difference | None

    def pictured(self) -> Iterator[int]:
        """Rows whose pictures the page shows, what matters most first."""
        yield from (suspect.row for suspect in self.worst[:WORST_WITH_PICTURE])
        for group in self.failures[:GROUPS]:
            yield from self.stopped(group)
        yield from self.contacts
        for spread in self.distributions:
            yield from (outlier.row for outlier in spread.shown)

    def stopped(self, group: FailureGroup) -> list[int]:
        """The first rows of a class of failures that have a video all the same, because a gate has stopped them."""
        return [row for row in group.rows if row in self.source.videos][:STOPPED_WITH_PICTURE]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; items by their ids."""
        ids = self.source.ids
        return {
            "glance": self.glance,
            "languages": self.languages,
            "worst": [
                {"id": ids[one.row], "points": round(one.points, 2), "reasons": one.reasons} for one in self.worst
            ],
            "suspects": self.suspects,
            "failures": [group.as_dict(ids) for group in self.failures],
            "distributions": [
                {
                    **spread.as_dict(),
                    "farthest": [
                        {"id": ids[one.row], "value": one.value, "deviations": round(one.deviations, 2)}
                        for one in spread.shown
                    ],
                }
                for spread in self.distributions
            ],
            "timeline": self.times.timeline.as_dict() if self.times else None,
            "sample": [ids[row] for row in self.contacts],
            "difference": self.difference.as_dict() if self.difference else None,
        }


def make_report(source: Source, against: Source | None = None) -> Report:
    """Everything but pictures and charts. Raises CannotRun where the records can't be read."""
    columns = list(numeric_columns(source))
    ranking = Ranking(source, columns)
    return Report(
        source=source,
        glance=glance(source),
        languages=by_language(source, columns),
        columns=columns,
        distributions=[distribution(column, values) for column, values in columns[:DISTRIBUTIONS]],
        columns_left_out=max(len(columns) - DISTRIBUTIONS, 0),
        worst=ranking.worst(WORST),
        suspects=ranking.suspects,
        ranking=ranking,
        failures=failure_groups(source),
        contacts=contact_sheet(source),
        times=read_times(source),
        difference=difference(source, against) if against else None,
    )


def contact_sheet(source: Source) -> list[int]:
    """Rows of a sample of the videos: those whose ids have the lowest hashes, the same ones each time."""
    ids, status = source.ids, source.column("status")
    ok = (row for row in source.videos if status[row] == "ok")
    drawn = nsmallest(CONTACTS, ok, key=lambda row: sha256(ids[row].encode()).digest())
    return sorted(drawn)
