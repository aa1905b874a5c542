"""What a run has left, as far as its report asks: the table of results, run.json, and when each worker was at work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CannotRun
from pipeline.inputs.fetch import redacted
from pipeline.records.index import RecordIndex
from pipeline.records.results import read_results
from pipeline.records.row import RESULTS_SCHEMA, results_row
from pipeline.storage import Store

_UNREAD = frozenset({"settings", "sha256", "fingerprint"})
"""Long columns that no part of the report shows."""


@dataclass(frozen=True)
class Source:
    """One output. Every text in it is free of the credentials that URLs may hold (`pipeline.inputs.fetch.redacted`)."""

    store: Store
    table: pa.Table
    """A row for each row of the manifest; columns under `RESULTS_SCHEMA`, and the manifest's own plain ones."""
    run: Mapping[str, Any]
    """run.json; empty where no run has ended."""
    sets: Mapping[str, Any]
    """set_metrics.json: FID and FVD; empty where nobody has measured them."""

    @property
    def name(self) -> str:
        return redacted(self.store.uri)

    @property
    def ended(self) -> bool:
        """Whether a run has ended here, so that the table has a row for all of its manifest."""
        return bool(self.run)

    @cached_property
    def ids(self) -> list[str]:
        """Of all rows; an id that is null is an empty text."""
        return [str(value or "") for value in self.column("id")]

    def column(self, name: str) -> list[Any]:
        """Values of a column; nulls where there is no such column."""
        if name not in self.table.column_names:
            return [None] * self.table.num_rows
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    @cached_property
    def videos(self) -> dict[int, str]:
        """Rows that have a video, in order, and the videos' keys: items that are ok, or that a gate has stopped."""
        rows = zip(self.column("status"), self.column("error_kind"), self.column("video"), strict=True)
        # Outputs are moved and copied: where the video lies beside the report counts, not where it was written.
        return {
            at: f"videos/{uri.rpartition('/')[2]}"
            for at, (status, kind, uri) in enumerate(rows)
            if uri and (status == "ok" or kind == "quality")
        }


def read_source(output: str, storage_options: Mapping[str, Mapping[str, Any]] | None = None) -> Source:
    """What there is of a run: its results, or its records where none has ended.

    Raises CannotRun for an output that holds neither, and where the storage fails.
    """
    store = Store(output, storage_options or {})
    run = _document(store, "run.json")
    table = read_results(store)
    if table is None:
        table, run = _from_records(store), {}
    if not {"id", "status"} <= set(table.column_names):
        raise CannotRun(f"{redacted(store.uri)}/results.parquet is no table of results: it has no id and status")
    return Source(store, _clean_table(table), _clean(run), _clean(_document(store, "set_metrics.json")))


def _document(store: Store, key: str) -> dict[str, Any]:
    try:
        found = json.loads(store.get_bytes(key))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_records(store: Store) -> pa.Table:
    rows = [(record.index, results_row(record, reused=False)) for _, record in RecordIndex(store).records()]
    if not rows:
        raise CannotRun(f"{redacted(store.uri)} is not the output of a run: it holds neither results nor records")
    # Not by the whole pair: several records may name one row.
    rows.sort(key=lambda row: row[0])
    return pa.Table.from_pylist([row for _, row in rows], schema=RESULTS_SCHEMA)


def _clean_table(table: pa.Table) -> pa.Table:
    """Plain columns, each name once, and no credentials in any text."""
    columns: dict[str, Any] = {}
    for at, field in enumerate(table.schema):
        if field.name in _UNREAD or field.name in columns or (pa.types.is_nested(field.type) and field.name != "flags"):
            continue
        column = table.column(at)
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = _clean_column(column)
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            continue
        columns[field.name] = column
    return pa.table(columns)


def _clean_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pc.any(pc.match_substring(column, "://")).as_py():
        return column
    return pa.chunked_array([[value and redacted(value) for value in column.to_pylist()]], type=column.type)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {redacted(str(key)): _clean(inner) for key, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list) else value
