"""Parquet files in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.parquet import parquet_bytes, parquet_table

TABLE = pa.table({"a": range(1000), "b": ["x"] * 1000})


def content() -> bytearray:
    return bytearray(parquet_bytes(TABLE))


def test_any_reader_reads_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(parquet_bytes(TABLE))
    assert pq.read_table(tmp_path / "t.parquet").equals(TABLE)


def test_a_table_comes_back_whole_or_some_columns_of_it() -> None:
    assert parquet_table(content()).equals(TABLE)
    assert parquet_table(content(), ["b", "absent"]).equals(TABLE.select(["b"]))


def test_arrows_threads_hold_nothing_of_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    data, opened = content(), pq.ParquetFile

    def with_data_gone(source: Any) -> pq.ParquetFile:
        data.clear()  # raises BufferError as long as something holds it
        return opened(source)

    monkeypatch.setattr(pq, "ParquetFile", with_data_gone)
    assert parquet_table(data).equals(TABLE)


@pytest.mark.parametrize("data", [b"", b"no Parquet"])
def test_what_is_no_parquet_is_refused(data: bytes) -> None:
    with pytest.raises(pa.ArrowException):
        parquet_table(data)
