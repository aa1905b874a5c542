"""The index of records: copies of them in a few large files, so that a restart does not read 100,000 small ones.

``items/_index/*.parquet`` hold a row for each record with the mark that its JSON file had (`Store.marks`). A row counts
only while a listing of ``items/`` still shows that mark: the JSON files are the truth, a newer one wins, a deleted one
is gone, and whatever is lost or half done in the index costs time alone. So nothing here needs to happen together:
new files are written before the ones that they replace are deleted, and a reader takes each record once.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from manifests.parquet import parquet_bytes, parquet_table
from pipeline.errors import ErrorKind
from pipeline.ledger import Record, parse_record
from pipeline.reuse.stage_facts import recorded_facts
from pipeline.storage import Store

FOLDER = "items/_index"
FILE_ROWS = 10_000
"""Records in one file at most; one that has less than half of this is written anew with others."""
MANY_LOOSE = 500
"""From so many records outside the index on, a run adds them to it without waiting for its end."""
_READ_AT_ONCE = 1000

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("mark", pa.string()),
        ("status", pa.string()),
        ("error_kind", pa.string()),
        ("request", pa.string()),
        ("identities", pa.string()),
        ("limits", pa.string()),
        ("fingerprint", pa.string()),
        ("inputs", pa.string()),
        ("made", pa.string()),
        ("finished_at", pa.string()),
        ("record", pa.string()),
    ]
)
"""``status`` and ``record`` are null for a JSON file that is no record."""
_OUTCOME = ("status", "error_kind", "request", "identities", "limits")
_ATTEMPT = ("status", "error_kind", "identities", "fingerprint", "inputs", "made", "finished_at")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a plan wants to know of a record."""

    status: Literal["ok", "failed"]
    error_kind: ErrorKind | None
    request: str | None
    identities: str
    """As `identities_text` gives them."""
    limits: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a plan wants to know of a record when something has changed."""

    key: str
    status: Literal["ok", "failed"]
    error_kind: ErrorKind | None
    identities: str
    """As `identities_text` gives them."""
    fingerprint: str | None
    inputs: str
    """JSON: role -> [URI, SHA-256]."""
    made: str
    """JSON: `recorded_facts`."""
    finished_at: str | None


def identities_text(identities: Mapping[str, str | None]) -> str:
    """Identities of inputs as one text, equal for equal ones."""
    return json.dumps(identities, sort_keys=True, separators=(",", ":"))


class RecordIndex:
    """All records of an output. Keys are the names of their files: ids, or ``_invalid/<row>``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: str | None = None

    def url(self, key: str) -> str:
        """Where the record of ``key`` lies."""
        return self._store.url(f"items/{key}.json")

    def outcomes(self, keys: Collection[str]) -> dict[str, Outcome]:
        """What became of those items that have a record that can be read. Raises `StorageError`."""
        found: dict[str, Outcome] = {}
        for table in self._tables(["key", *_OUTCOME]):
            for key, *facts in zip(*(column.to_pylist() for column in table.columns), strict=True):
                if facts[0] is not None and key in keys:
                    found[key] = Outcome(*facts)
        return found

    def attempts(self) -> Iterator[Attempt]:
        """Every record that can be read, in any order. Raises `StorageError`."""
        for table in self._tables(["key", *_ATTEMPT]):
            for key, status, *facts in zip(*(column.to_pylist() for column in table.columns), strict=True):
                if status is not None:
                    yield Attempt(key, status, *facts)

    def records(self, keys: Collection[str] | None = None) -> Iterator[tuple[str, Record]]:
        """Every record that can be read, or those of ``keys``, in any order; a few at a time are held in memory.

        Raises `StorageError`.
        """
        for table in self._tables(["key", "record"]):
            for key, text in zip(*(column.to_pylist() for column in table.columns), strict=True):
                if text is not None and (keys is None or key in keys):
                    record = parse_record(text)
                    if record is not None:
                        yield key, record

    def compact(self, *, many: int = 1) -> None:
        """Bring the index up to date if at least ``many`` records are missing in it. Raises `StorageError`."""
        marks = self._marks()
        small: list[tuple[str, bytes, list[bool]]] = []
        tidy = True
        for name, data in self._files():
            table = _read(data, ["key", "mark"])
            live = _live(table, marks)
            if table is None or sum(live) < FILE_ROWS // 2:
                small.append((name, data if any(live) else b"", live))
                tidy &= bool(live) and all(live)
        loose = {key: mark for key, mark in marks.items() if mark}
        if not (len(loose) >= many if loose else len(small) > 1 or not tidy):
            return
        kept = [table.filter(pa.array(live)) for _, data, live in small if (table := _read(data)) is not None]
        self._write(kept, self._loose(loose))
        for name, *_ in small:
            self._store.delete(name)
        self._open = None

    def add(self, keys: Iterable[str]) -> None:
        """Bring records into the index that this object's run has just written. Raises `StorageError`."""
        marks = self._marks()
        written = {key: marks[key] for key in keys if marks.get(key)}
        before = self._open
        kept: list[pa.Table] = []
        if before is not None:
            found = self._store.get_many([before])
            kept = [table for data in found.values() if (table := _read(data)) is not None]
        name, rows = self._write(kept, self._loose(written))
        if before is not None:
            self._store.delete(before)
        self._open = name if rows < FILE_ROWS // 2 else None

    def _tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """Every record once: from the index where that is up to date, else from its own file."""
        marks = self._marks()
        for _, data in self._files():
            table = _read(data, ["key", "mark", *(name for name in columns if name != "key")])
            live = _live(table, marks)
            if table is not None and any(live):
                yield table.filter(pa.array(live)).select(columns)
        for table in self._loose(marks):
            yield table.select(columns)

    def _marks(self) -> dict[str, str]:
        """The mark of every record's own file, by key."""
        return {
            name.removeprefix("items/").removesuffix(".json"): mark
            for folder in ("items", "items/_invalid")
            for name, mark in self._store.marks(folder).items()
            if name.endswith(".json")
        }

    def _files(self) -> Iterator[tuple[str, bytes]]:
        """The index's files. One that a run replaces meanwhile is followed by what replaces it."""
        seen: set[str] = set()
        while waiting := sorted(self._store.list(FOLDER) - seen):
            seen.update(waiting)
            for name in waiting:
                # One after the other: together they may not fit into memory.
                yield from self._store.get_many([name]).items()

    def _loose(self, marks: Mapping[str, str]) -> Iterator[pa.Table]:
        """Tables under `_SCHEMA` of records that are read from their own files."""
        keys = sorted(marks)
        for start in range(0, len(keys), _READ_AT_ONCE):
            names = {f"items/{key}.json": key for key in keys[start : start + _READ_AT_ONCE]}
            found = self._store.get_many(names)
            rows = [_row(names[name], marks[names[name]], data) for name, data in found.items()]
            yield pa.Table.from_pylist(rows, schema=_SCHEMA)

    def _write(self, kept: list[pa.Table], more: Iterator[pa.Table]) -> tuple[str | None, int]:
        """Write tables as files of the index; the name of the last one, and how many rows it has."""
        name, last = None, 0
        waiting = _SCHEMA.empty_table()
        for table in (*kept, *more):
            waiting = pa.concat_tables([waiting, table])
            while waiting.num_rows >= FILE_ROWS:
                name, last = self._put(waiting.slice(0, FILE_ROWS)), FILE_ROWS
                waiting = waiting.slice(FILE_ROWS)
        if waiting.num_rows:
            name, last = self._put(waiting), waiting.num_rows
        return name, last

    def _put(self, table: pa.Table) -> str:
        name = f"{FOLDER}/{uuid.uuid4().hex}.parquet"
        self._store.put_bytes(name, parquet_bytes(table))
        return name


def _live(table: pa.Table | None, marks: dict[str, str]) -> list[bool]:
    """Which rows still hold; their keys are taken out of ``marks``, so that no other row of theirs counts too."""
    if table is None:
        return []
    live = []
    for key, mark in zip(table["key"].to_pylist(), table["mark"].to_pylist(), strict=True):
        # An empty mark says nothing.
        live.append(bool(mark) and marks.get(key) == mark)
        if live[-1]:
            del marks[key]
    return live


def _read(data: bytes, columns: list[str] | None = None) -> pa.Table | None:
    """A file of the index; None for one that is damaged or of another version of this program."""
    try:
        table = parquet_table(data, columns or _SCHEMA.names)
    except (pa.ArrowException, OSError):
        return None
    return table if set(columns or _SCHEMA.names) <= set(table.schema.names) else None


def _row(key: str, mark: str, data: bytes) -> dict[str, Any]:
    record = parse_record(data)
    if record is None:
        return {"key": key, "mark": mark}
    return {
        "key": key,
        "mark": mark,
        "status": record.status,
        "error_kind": record.error.kind if record.error else None,
        "request": record.request,
        "identities": identities_text(record.identities),
        "limits": record.limits,
        "fingerprint": record.fingerprint,
        "inputs": json.dumps({role: [given.uri, given.sha256] for role, given in record.inputs.items()}),
        "made": json.dumps(recorded_facts(record), sort_keys=True),
        "finished_at": record.finished_at,
        "record": data.decode(),
    }
