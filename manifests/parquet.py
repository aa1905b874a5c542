"""Parquet files in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_table(data: bytes | bytearray, columns: Sequence[str] | None = None) -> pa.Table:
    """The table that the content of a Parquet file holds, of ``columns`` those it has, or all.

    Raises pyarrow.ArrowException or OSError if it is no whole Parquet file.
    """
    # Arrow's threads give what they read from back a moment after they are done. If that belongs to Python, which is
    # about to end, they end the process: "terminate called without an active exception". So they read a copy.
    own = pa.BufferOutputStream()
    own.write(data)
    with pq.ParquetFile(pa.BufferReader(own.getvalue())) as file:
        return file.read(columns=None if columns is None else list(columns))


def parquet_bytes(table: pa.Table) -> bytes:
    """The content of a Parquet file that holds a table, compressed by zstd."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue().to_pybytes()
