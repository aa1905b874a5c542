"""When the stages of the last run worked: as run.json has it, else as far as records tell."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.accounting.timeline import Actor, Timeline, timeline
from pipeline.ledger import Record
from pipeline.records.index import RecordIndex
from pipeline.report.source import Source


@dataclass(frozen=True)
class Times:
    timeline: Timeline
    whole: bool
    """False where records alone tell, which name one worker for each stage: of a portrait and a recording that both
    went through a stage for an item, one is missing."""


def read_times(source: Source) -> Times | None:
    """Of the last run that made something; None where nothing tells. Raises CannotRun."""
    if (noted := source.run.get("timeline")) is not None:
        return Times(Timeline.of_dict(noted), whole=True)
    found = timeline_of(record for _, record in RecordIndex(source.store).records())
    return Times(found, whole=False) if found else None


def timeline_of(records: Iterable[Record]) -> Timeline | None:
    """Of the records of the run with the highest fence: items that earlier ones made are left out."""
    last = -1
    # Files that many items name stand in the record of each.
    seen: set[tuple[Actor, float]] = set()
    worked: defaultdict[Actor, array[float]] = defaultdict(lambda: array("d"))
    for record in records:
        fence = record.fence or 0
        if fence < last or record.copied_from is not None or not record.workers:
            continue
        if fence > last:
            last = fence
            seen.clear()
            worked.clear()
        for stage, worker in record.workers.items():
            if worker.started_at is None or worker.ended_at is None:
                continue
            actor = (stage, worker.node, worker.pid)
            if (actor, worker.started_at) not in seen:
                seen.add((actor, worker.started_at))
                worked[actor].extend((worker.started_at, worker.ended_at))
    return timeline(worked)
