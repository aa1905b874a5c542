"""The results table has a row for every row of the manifest, in its order, beside the user's own columns."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import CannotRun
from pipeline.records import results
from pipeline.records.results import ScatteredRows, beside, read_results, write_results
from pipeline.records.row import RESULTS_SCHEMA, results_row, skipped_row
from pipeline.storage import Store
from tests.pipeline.test_ledger import failed, ok


def in_order(folder: Path, rows: list[tuple[int, dict[str, Any]]], at_once: int = 1000) -> list[pa.Table]:
    scattered = ScatteredRows(folder)
    for start in range(0, len(rows), at_once):
        scattered.add(rows[start : start + at_once])
    return list(scattered.in_order())


def test_the_table_has_the_rows_in_order_beside_the_users_columns(tmp_path: Path) -> None:
    user = pa.table(
        {
            "speaker": pa.array(["Ann", None, "Cem"]).dictionary_encode(),
            "take": pa.array([1, 2, 3], pa.int8()),
            "price": pa.array([Decimal("1.10"), None, Decimal("3.30")], pa.decimal128(9, 2)),
            "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
            "when": pa.array([0, 1, None], pa.timestamp("ms", tz="UTC")),
            "about": pa.array([{"x": 1}, None, {"x": 3}], pa.struct([("x", pa.int32())])),
            "empty": pa.nulls(3),
        }
    )
    rows = [
        (2, results_row(ok(), reused=True)),
        (0, results_row(failed(key="b"), reused=False)),
        (1, skipped_row("a", "limit")),
    ]
    (ordered,) = in_order(tmp_path, rows, at_once=1)
    table = beside(ordered, user)
    assert table.column("id").to_pylist() == ["b", "a", "one"]
    assert table.column("status").to_pylist() == ["failed", "skipped", "ok"]
    assert table.column("reused").to_pylist() == [False, False, True]
    assert table.column("flags").to_pylist() == [[], ["limit"], []]
    assert table.schema.names == [*RESULTS_SCHEMA.names, *user.schema.names]
    for name in user.schema.names:
        assert table.schema.field(name).type == user.schema.field(name).type
        assert table.column(name).to_pylist() == user.column(name).to_pylist()


def test_columns_without_any_value_keep_their_types(tmp_path: Path) -> None:
    (table,) = in_order(tmp_path, [(0, skipped_row("a", "limit"))])
    assert table.schema.field("frames").type == pa.int64()
    assert table.schema.field("error_message").type == pa.string()
    assert table.column("frames").null_count == 1
    # No user columns: the row is still there.
    assert beside(table, pa.table({})).num_rows == 1


def test_user_columns_of_another_length_are_a_defect(tmp_path: Path) -> None:
    (table,) = in_order(tmp_path, [(0, skipped_row("a", "limit"))])
    with pytest.raises(pa.ArrowInvalid):
        beside(table, pa.table({"own": [1, 2]}))


def test_rows_in_any_order_become_blocks_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "BLOCK_ROWS", 10)
    rows = [(place, skipped_row(f"row-{place}", "limit")) for place in range(35)]
    random.Random(0).shuffle(rows)
    tables = in_order(tmp_path, rows, at_once=7)
    assert [table.num_rows for table in tables] == [10, 10, 10, 5]
    assert pa.concat_tables(tables).column("id").to_pylist() == [f"row-{place}" for place in range(35)]


def test_written_results_are_read_back(tmp_path: Path) -> None:
    (one,) = in_order(tmp_path, [(0, results_row(ok(), reused=False))])
    tables = [beside(one, pa.table({"speaker": [name]})) for name in ("Ann", "Bob")]
    write_results(Store(str(tmp_path / "run"), {}), tables)
    back = read_results(Store(str(tmp_path / "run"), {}))
    assert back.schema.equals(tables[0].schema)
    assert back.to_pylist() == pa.concat_tables(tables).to_pylist()


@pytest.mark.parametrize("content", [b"", b"no table", b"PAR1 damaged PAR1"])
def test_results_that_cannot_be_read_are_said_so(tmp_path: Path, content: bytes) -> None:
    store = Store(str(tmp_path), {})
    assert read_results(store) is None
    (tmp_path / "results.parquet").write_bytes(content)
    with pytest.raises(CannotRun, match=r"results\.parquet can't be read"):
        read_results(store)
