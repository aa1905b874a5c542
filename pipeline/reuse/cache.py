"""The cache in a run's output: crops, features and motion that a later run may want again.

Results are named by what they are made of (`pipeline.reuse.stage_facts`), so none is ever stale; what is not wanted any
more goes when the cache is over its limit, the least recently used first. That happens at the end of a run, under its
lease: nothing that a stage may still read is removed.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from manifests.parquet import parquet_bytes, parquet_table
from pipeline.config import CacheSettings
from pipeline.listing import Stored
from pipeline.reuse.fingerprint import digest
from pipeline.storage import Store

FOLDER = "cache"
CACHED_STAGES = ("crop", "features", "motion")
_USES = f"{FOLDER}/uses.parquet"
_PARTS = f"{FOLDER}/parts"
_RESULT = re.compile(rf"{FOLDER}/({'|'.join(CACHED_STAGES)})/[0-9a-f]{{2}}/[0-9a-f]{{64}}\.npz")


@dataclass(frozen=True)
class CacheSummary:
    """The cache at the end of a run, and what left it."""

    files: int = 0
    size_bytes: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Results, by stage."""
    dropped_bytes: int = 0


class Cache:
    """Cached results by key, as one listing shows them; it is taken at the first need."""

    def __init__(self, store: Store, settings: CacheSettings) -> None:
        self._store = store
        self._settings = settings
        self._listed: dict[str, Stored] | None = None
        self._parts: list[str] = []
        self._noted = False
        self._uses: dict[str, float] | None = None

    @property
    def results(self) -> Mapping[str, Stored]:
        """Raises `StorageError`."""
        if self._listed is None:
            found = self._store.files(FOLDER)
            self._listed = {key: stored for key, stored in found.items() if _RESULT.fullmatch(key)}
            self._noted = _USES in found
            self._parts = [key for key in found if key.startswith(f"{_PARTS}/")]
        return self._listed

    def __contains__(self, key: str) -> bool:
        return key in self.results

    def superfluous(self, used: Collection[str]) -> list[str]:
        """Keys that leave the cache if nothing is added; ``used`` are those that the run wants."""
        if not self._settings.keep:
            return list(self.results)
        excess = sum(stored.size for stored in self.results.values()) - self._settings.max_bytes
        if excess <= 0:
            return []
        last = self._last_uses()
        oldest = sorted(self.results, key=lambda key: (key in used, last.get(key, self.results[key].modified), key))
        gone = []
        for key in oldest:
            if excess <= 0:
                break
            excess -= self.results[key].size
            gone.append(key)
        return gone

    def end(self, used: Collection[str]) -> CacheSummary:
        """Drop what is over the limit, and parts that nobody joins any more; note what was used.

        Raises `StorageError`.
        """
        if used:
            self._listed = None
        gone = self.superfluous(used)
        left = {key: stored for key, stored in self.results.items() if key not in {*gone}}
        summary = CacheSummary(
            files=len(left),
            size_bytes=sum(stored.size for stored in left.values()),
            dropped=dict(Counter(stage_of(key) for key in gone)),
            dropped_bytes=sum(self.results[key].size for key in gone),
        )
        # A run that was killed before it had noted what it used may leave nothing for the next one to use.
        if self._settings.keep and (used or (left and not self._noted)):
            # First: a use that is noted of a result that is gone does no harm.
            self._note({key: time.time() for key in used if key in left})
        self._store.delete_many(self._parts)
        self._store.delete_many(gone if self._settings.keep else [*gone, _USES] if gone else [])
        self._listed = left
        return summary

    def _last_uses(self) -> dict[str, float]:
        """When results were last used (Unix time), as far as runs have noted it."""
        if self._uses is None:
            try:
                table = parquet_table(self._store.get_bytes(_USES), ["key", "used_at"])
                self._uses = dict(zip(table["key"].to_pylist(), table["used_at"].to_pylist(), strict=True))
            except (FileNotFoundError, KeyError, pa.ArrowException):
                self._uses = {}
        return self._uses

    def _note(self, uses: Mapping[str, float]) -> None:
        known = {key: at for key, at in self._last_uses().items() if key in self.results}
        known.update(uses)
        columns: dict[str, list[Any]] = {"key": list(known), "used_at": list(known.values())}
        self._store.put_bytes(_USES, parquet_bytes(pa.table(columns)))
        self._uses = known


def part_key(facts: Mapping[str, Any]) -> str:
    """Store key of a rendered part of a long item; it lives until the item is committed, or to the end of a run."""
    return f"{_PARTS}/{digest(facts)}.zip"


def stage_of(key: str) -> str:
    """The stage that made a cached result."""
    return key.split("/")[1]
