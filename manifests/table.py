"""Tables of text: CSV and JSON lines read without a loss, and Parquet written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from manifests.errors import ManifestError
from manifests.parquet import parquet_bytes
from manifests.schema import BY_NAME
from manifests.uri import StorageOptions, filesystem, storage_errors

# What a number gives back digit by digit: not 007, not -0, not more digits than a float holds.
_INTEGER = re.compile(r"0|-?[1-9]\d{0,17}")
_NUMBER = re.compile(r"-?(?!0\d)(?=(?:\D*\d){1,15}\D*$)\d+(?:\.\d+)?(?:[eE][+-]?\d{1,2})?")
_FLAG = re.compile("true|false")
_TYPES = ((_FLAG, pa.bool_()), (_INTEGER, pa.int64()), (_NUMBER, pa.float64()))
_TEXT_KINDS = ("uri", "text")


def read_table(uri: str, storage_options: StorageOptions | None = None) -> pa.Table:
    """Read ``.csv`` (header line, comma) or ``.jsonl``/``.ndjson`` (an object a line), UTF-8, as columns.

    CSV columns become integers, floats or booleans only where no digit is lost: ``007`` stays a text. Columns that
    hold URIs, ids and other texts stay texts; empty cells are null.

    Raises:
        ManifestError: another ending, unreadable, or a line that can't be parsed.
    """
    readers = {".csv": _from_csv, ".jsonl": _from_json_lines, ".ndjson": _from_json_lines}
    ending = next((ending for ending in readers if uri.lower().endswith(ending)), None)
    if ending is None:
        raise ManifestError(f"{uri}: expected a .csv, .jsonl or .ndjson file")
    try:
        filesystem_, path = filesystem(uri, storage_options)
        text = filesystem_.cat_file(path).decode("utf-8-sig")
    except FileNotFoundError as exc:
        raise ManifestError(f"{uri}: no such file") from exc
    except UnicodeDecodeError as exc:
        raise ManifestError(f"{uri}: expected UTF-8 text: {exc}") from exc
    except storage_errors() as exc:
        raise ManifestError(f"{uri}: can't be read: {type(exc).__name__}: {exc}") from exc
    try:
        table = readers[ending](text)
    except (csv.Error, ValueError) as exc:
        raise ManifestError(f"{uri}: {exc}") from exc
    if not table.num_rows:
        raise ManifestError(f"{uri}: expected at least one row, found none")
    return table


def write_table(table: pa.Table, uri: str, storage_options: StorageOptions | None = None) -> None:
    """Write Parquet in one step: a reader sees the old file or the new one, never half of it.

    Raises:
        ManifestError: the place can't be written to.
    """
    try:
        content = parquet_bytes(table)
        filesystem_, path = filesystem(uri, storage_options)
        if isinstance(filesystem_, LocalFileSystem):
            _replace(Path(path), content)
        else:
            filesystem_.pipe_file(path, content)
    except storage_errors() as exc:
        raise ManifestError(f"{uri}: can't be written: {type(exc).__name__}: {exc}") from exc


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _from_csv(text: str) -> pa.Table:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = next(lines, [])
    rows: list[list[str]] = []
    for row in lines:
        if len(row) not in (0, len(names)):
            raise ValueError(f"line {lines.line_num}: expected {len(names)} cells, found {len(row)}")
        if row:
            rows.append(row)
    cells = [[row[place] or None for row in rows] for place in range(len(names))]
    return pa.Table.from_arrays([_typed(name, column) for name, column in zip(names, cells, strict=True)], names)


def _typed(name: str, cells: Sequence[str | None]) -> pa.Array:
    texts = pa.array(cells, pa.string())
    given = [cell for cell in cells if cell is not None]
    if given and not (name in BY_NAME and BY_NAME[name].kind in _TEXT_KINDS):
        for pattern, dtype in _TYPES:
            if all(map(pattern.fullmatch, given)):
                return texts.cast(dtype)
    return texts


def _from_json_lines(text: str) -> pa.Table:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as exc:
            raise ValueError(f"line {number}: {exc}") from exc
        if not isinstance(record, dict):
            raise ValueError(f"line {number}: expected an object, found {line[:60]!r}")
        records.append(record)
    names = list(dict.fromkeys(name for record in records for name in record))
    return pa.table({name: _array(name, [record.get(name) for record in records]) for name in names})


def _array(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as exc:
        raise ValueError(f"column {name!r}: expected values of one type: {exc}") from exc
