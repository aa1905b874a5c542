"""Reading a manifest: a Parquet file, or a folder of them, from any storage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem

from manifests.errors import ManifestError
from manifests.parquet import parquet_table
from manifests.row import MotionFrom, Row, parse_rows
from manifests.schema import check_schema, user_columns
from manifests.uri import StorageOptions, absolute, file_name, filesystem, parent, storage_errors


@dataclass(frozen=True)
class Manifest:
    """A manifest in memory.

    ``base`` is the folder that relative URIs stand in: the file's folder, or the folder itself. ``extra`` holds
    the user's own columns with their names and types, one row for every manifest row, in order.
    """

    uri: str
    base: str
    schema: pa.Schema
    rows: tuple[Row, ...]
    extra: pa.Table


def read_manifest(
    uri: str,
    storage_options: StorageOptions | None = None,
    *,
    results_columns: Collection[str] = (),
    motion_from: MotionFrom | None = None,
    require_consent: bool = False,
) -> Manifest:
    """Read a manifest whole.

    Args:
        uri: a Parquet file, or a folder whose ``*.parquet`` files are read in the order of their names.
        storage_options: fsspec options by protocol.
        results_columns: names the results use, which the user's own columns may not have.
        motion_from: the run's choice for rows that have both audio and driver and don't say themselves.
        require_consent: whether a row without consent is wrong.

    Raises:
        ManifestError: the manifest as a whole can't be used. Rows that are wrong are returned with their
            problems.
    """
    uri = absolute(uri).rstrip("/")
    if "::" in uri:
        raise ManifestError(f"manifest {uri}: expected a plain URI, found a chain; copy the manifest out first")
    table, base = _load(uri, storage_options)
    try:
        check_schema(table.schema, results_columns)
    except ManifestError as exc:
        raise ManifestError(f"manifest {uri}: {exc}") from exc
    if not table.num_rows:
        raise ManifestError(f"manifest {uri}: expected at least one row, found none")
    rows = tuple(parse_rows(table, base, motion_from, require_consent=require_consent))
    return Manifest(uri, base, table.schema, rows, table.select(user_columns(table.schema)))


def single_row(
    row: Mapping[str, Any], base: str, *, motion_from: MotionFrom | None = None, require_consent: bool = False
) -> Manifest:
    """A manifest of one row that stands in no file, relative URIs in the folder ``base``; None is "not given"."""
    table = pa.Table.from_pylist([{name: value for name, value in row.items() if value is not None}])
    rows = tuple(parse_rows(table, base, motion_from, require_consent=require_consent))
    return Manifest("command line", base, table.schema, rows, table.select(user_columns(table.schema)))


def _load(uri: str, storage_options: StorageOptions | None) -> tuple[pa.Table, str]:
    try:
        filesystem_, path = filesystem(uri, storage_options)
        # fsspec keeps listings for the whole process: a manifest written a moment ago must be seen.
        filesystem_.invalidate_cache()
        if not filesystem_.isdir(path):
            return _read(filesystem_, path), parent(uri)
        files = sorted(
            name
            for name in filesystem_.ls(path, detail=False)
            if name.endswith(".parquet") and not file_name(name).startswith((".", "_"))
        )
        if not files:
            raise ManifestError(f"manifest {uri}: the folder holds no .parquet file")
        tables = [_read(filesystem_, name) for name in files]
        return pa.concat_tables(tables, promote_options="permissive"), uri
    except FileNotFoundError as exc:
        raise ManifestError(f"manifest {uri}: no such file or folder") from exc
    except pa.ArrowException as exc:
        raise ManifestError(f"manifest {uri}: expected Parquet, found another or damaged file: {exc}") from exc
    except storage_errors() as exc:
        raise ManifestError(f"manifest {uri}: can't be read: {type(exc).__name__}: {exc}") from exc


def _read(filesystem_: AbstractFileSystem, path: str) -> pa.Table:
    return parquet_table(filesystem_.cat_file(path))
