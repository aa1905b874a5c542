"""Compaction while a run goes on, so that a run that is killed leaves few records outside the index."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.records.index import MANY_LOOSE, RecordIndex
from pipeline.storage import StorageError

_SHARE_OF_TIME = 0.1
"""How much of a run's time its index may cost; where listings are slow, more records wait outside."""


class Compactor:
    """Adds records to the index as they are reported."""

    def __init__(self, index: RecordIndex, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._clock = clock
        self._waiting: list[str] = []
        self._not_before = clock()

    def note(self, key: str) -> None:
        """A record has been written. Every so many of them are brought into the index."""
        self._waiting.append(key)
        started = self._clock()
        if len(self._waiting) < MANY_LOOSE or started < self._not_before:
            return
        try:
            self._index.add(self._waiting)
            self._waiting = []
        except StorageError:
            # The index is a copy: no reason to end a run. What waits is tried again.
            pass
        ended = self._clock()
        self._not_before = ended + (ended - started) * (1 - _SHARE_OF_TIME) / _SHARE_OF_TIME
