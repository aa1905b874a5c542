"""Records held against gates."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import item_error
from pipeline.ledger import Record
from pipeline.metrics.gates import Gate, gates_of, judge, rejudged
from pipeline.tasks import ItemTask


def judged(record: Record, gates: Mapping[str, Gate]) -> Record:
    """The record with what a job's gates and the default ones say of it.

    One that failed by anything but ``quality`` stays as it is.
    """
    if record.error is not None and record.error.kind != "quality":
        return record
    verdict = judge(record.metrics, gates_of(gates, record.weights, record.flags))
    return record.model_copy(
        update={
            "status": "failed" if verdict.error else "ok",
            "error": verdict.error,
            "flags": rejudged(record.flags, verdict),
        }
    )


def hold(task: ItemTask, gates: Mapping[str, Gate], weights: str) -> None:
    """Hold a task that has been measured against a job's gates and the default ones.

    Raises an `ItemError` of kind ``quality``.
    """
    verdict = judge(task.metrics, gates_of(gates, weights, task.flags))
    task.flags = rejudged(task.flags, verdict)
    if verdict.error is not None:
        raise item_error(verdict.error)
