"""Claims: which tasks were set aside because their worker died, so that a poisonous one can't go round for ever.

A healthy task costs nothing: only one that got lost is claimed, by the worker that begins with it alone; the claim is
deleted when the task is back. A claim that a run finds when it starts was left by one that died over the task. That
would be its third attempt, and it fails instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

from pipeline.ledger import now
from pipeline.storage import Store
from pipeline.tasks import Task

T = TypeVar("T", bound=Task)

FOLDER = "items/_claims"


class Claims:
    """The claims of one output on tasks of one kind; for the run that holds the output's lease."""

    def __init__(self, store: Store, kind: str) -> None:
        """``kind`` keeps the keys of items and of assets apart."""
        self._store, self._prefix = store, f"{FOLDER}/{kind}-"

    def left(self) -> set[str]:
        """Keys of the tasks that an earlier run had set aside when it died. One listing. Raises `StorageError`."""
        names = self._store.list(FOLDER)
        return {
            name.removeprefix(self._prefix).removesuffix(".json") for name in names if name.startswith(self._prefix)
        }

    def marked(self, tasks: Iterable[T]) -> list[T]:
        """Copies of the tasks that whoever begins with them has to claim (`claim`)."""
        return [task.model_copy(update={"claim": self._name(task.key)}) for task in tasks]

    def release(self, key: str) -> None:
        """Delete the claim on a task that is back or given up. Raises `StorageError`."""
        self._store.delete(self._name(key))

    def _name(self, key: str) -> str:
        return f"{self._prefix}{key}.json"


def claim(store: Store, task: Task, stage: str) -> None:
    """Store the claim on a task that is `Claims.marked`. Raises `StorageError`."""
    if task.claim is not None:
        store.put_bytes(task.claim, json.dumps({"stage": stage, "at": now()}).encode())
