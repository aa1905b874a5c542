"""Runs for tests: manifests over the demo's media, with broken inputs where a test wants them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from pipeline.config import RunSettings
from pipeline.errors import Retry
from pipeline.execute import Context, Executor, in_process
from pipeline.progress import RunProgress
from pipeline.run import load_manifest, prepare, run
from pipeline.summary import RunSummary

DEMO = Path(__file__).parent.parent / "manifests" / "demo"

TINY = RunSettings(model="imtalker-tiny", max_seconds=0.4)
"""The small seeded model, clips of ten frames."""


def demo(name: str) -> str:
    return str(DEMO / name)


def write_manifest(folder: Path, rows: list[dict[str, Any]], name: str = "manifest.parquet") -> str:
    path = folder / name
    columns = list(dict.fromkeys(key for row in rows for key in row))
    pq.write_table(pa.table({column: [row.get(column) for row in rows] for column in columns}), path)
    return str(path)


def run_manifest(
    manifest: str,
    output: str | Path,
    settings: RunSettings = TINY,
    *,
    executor: Callable[[Context], AbstractContextManager[Executor]] = in_process,
    limit: int | None = None,
    retry: Retry | None = None,
) -> RunSummary:
    read = load_manifest(manifest, settings)
    with RunProgress(Console(quiet=True), 60) as progress:
        return run(read, settings, prepare(settings), str(output), executor, progress, limit=limit, retry=retry)


def results(output: str | Path) -> dict[str, dict[str, Any]]:
    """Rows of results.parquet by id."""
    return {row["id"]: row for row in pq.read_table(Path(output) / "results.parquet").to_pylist()}
