"""Records held against gates."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.ledger import Record
from pipeline.metrics.gates import Gate, judge, rejudged


def judged(record: Record, gates: Mapping[str, Gate]) -> Record:
    """The record with what these gates say of it; one that failed by anything but ``quality`` stays as it is."""
    if record.error is not None and record.error.kind != "quality":
        return record
    verdict = judge(record.metrics, gates)
    return record.model_copy(
        update={
            "status": "failed" if verdict.error else "ok",
            "error": verdict.error,
            "flags": rejudged(record.flags, verdict),
        }
    )
