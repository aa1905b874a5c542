"""Outputs of runs, made up: real tables, records and small real videos, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import Record
from pipeline.records.row import RESULTS_SCHEMA
from pipeline.report.source import Source, read_source
from pipeline.tasks import Worker
from tests.media_files import write_video

RED, BLUE = (200, 30, 30), (30, 30, 200)

RUN: dict[str, Any] = {
    "manifest": "people.parquet",
    "settings": {"cfg_scale": 3.0, "video": {"crf": 18}},
    "model": {"model": "imtalker-tiny", "fps": 25, "weights": "random", "weights_sha256": {}},
    "versions": {"python": "3.11"},
    "summary": {"seconds": 10.0, "frames": 500, "weights": "random", "stages": {}, "cost": None},
    "finished_at": "2026-01-02T03:04:05+00:00",
}


def ok_row(id: str, **facts: Any) -> dict[str, Any]:
    video = f"/elsewhere/videos/{id}.mp4"
    made = {"video": video, "frames": 50, "duration_s": 2.0, "size_bytes": 50_000, "attempts": 1}
    return {"id": id, "status": "ok", "reused": False, "flags": [], **made, **facts}


def failed_row(id: str, kind: str = "input", message: str = "no face", **facts: Any) -> dict[str, Any]:
    error = {"error_kind": kind, "error_stage": "crop", "error_message": message, "error_hint": f"mend {kind}"}
    return {"id": id, "status": "failed", "reused": False, "flags": [], "attempts": 1, **error, **facts}


def write_output(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Sequence[Any]] | None = None,
    *,
    run: Mapping[str, Any] | None = RUN,
    videos: bool = False,
) -> Path:
    """``results.parquet`` and ``run.json`` of ``rows``, with ``columns`` beside them, and videos of two frames."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in RESULTS_SCHEMA}
    )
    for name, values in (columns or {}).items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, folder / "results.parquet")
    if run is not None:
        (folder / "run.json").write_text(json.dumps(run))
    if videos:
        (folder / "videos").mkdir(exist_ok=True)
        for row in rows:
            if row.get("video"):
                colours = [np.full((48, 64, 3), colour, np.uint8) for colour in (RED, BLUE) for _ in range(25)]
                write_video(folder / "videos" / f"{row['id']}.mp4", colours)
    return folder


def source_of(
    folder: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Sequence[Any]] | None = None
) -> Source:
    return read_source(str(write_output(folder, rows, columns)))


def record(id: str, workers: Mapping[str, tuple[int, float, float]], *, fence: int = 1, **facts: Any) -> Record:
    """``workers``: by stage the process, and when it began and ended."""
    return Record(
        id=id,
        index=0,
        status="ok",
        fence=fence,
        workers={
            stage: Worker(pid=pid, node="n", gpus="", started_at=start, ended_at=end)
            for stage, (pid, start, end) in workers.items()
        },
        **facts,
    )
