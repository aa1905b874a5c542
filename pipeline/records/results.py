"""The results table of a run, written in the manifest's order without ever holding it whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.parquet import parquet_table
from pipeline.errors import CannotRun
from pipeline.inputs.fetch import redacted
from pipeline.records.row import RESULTS_SCHEMA
from pipeline.storage import Store

_PLACE = "place"
BLOCK_ROWS = 10_000
"""Rows that are held in memory, and that make one row group of the file."""


def beside(table: pa.Table, user_columns: pa.Table) -> pa.Table:
    """Results with the manifest's remaining columns, which have as many rows, behind them."""
    for field in user_columns.schema:
        table = table.append_column(field, user_columns.column(field.name))
    return table


def write_results(store: Store, tables: Iterable[pa.Table]) -> None:
    """Write ``results.parquet`` of tables that follow each other. Raises `StorageError`."""
    with TemporaryDirectory(prefix="imtalker-results-") as folder:
        path = Path(folder) / "results.parquet"
        with ExitStack() as stack:
            writer: pq.ParquetWriter | None = None
            for table in tables:
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(path, table.schema))
                writer.write_table(table, row_group_size=BLOCK_ROWS)
        store.put_file(path, "results.parquet")


def read_results(store: Store) -> pa.Table | None:
    """The table of ``results.parquet``; None where no run has ended.

    Raises CannotRun for a file that is no Parquet, `StorageError` where the storage fails.
    """
    try:
        return parquet_table(store.get_bytes("results.parquet"))
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as exc:
        raise CannotRun(f"{redacted(store.uri)}/results.parquet can't be read: {exc}") from exc


class ScatteredRows:
    """Rows under `RESULTS_SCHEMA` that come in any order, kept on this machine's disk until all are there."""

    def __init__(self, folder: Path) -> None:
        """``folder`` exists and is empty."""
        self._folder = folder
        self._schema = pa.schema([(_PLACE, pa.int64()), *RESULTS_SCHEMA])
        self._stack = ExitStack()
        self._blocks: dict[int, pa.RecordBatchFileWriter] = {}

    def add(self, rows: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """Rows and their places in the table, from 0."""
        by_block: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for place, row in rows:
            by_block[place // BLOCK_ROWS].append({_PLACE: place, **row})
        for block, some in by_block.items():
            if block not in self._blocks:
                writer = pa.ipc.new_file(str(self._folder / f"{block}.arrow"), self._schema)
                self._blocks[block] = self._stack.enter_context(writer)
            self._blocks[block].write_batch(pa.RecordBatch.from_pylist(some, schema=self._schema))

    def in_order(self) -> Iterator[pa.Table]:
        """Everything that was added, in tables that follow each other; nothing can be added any more."""
        self._stack.close()
        for block in sorted(self._blocks):
            with pa.OSFile(str(self._folder / f"{block}.arrow")) as file:
                table = pa.ipc.open_file(file).read_all()
            yield table.sort_by(_PLACE).drop_columns([_PLACE])
