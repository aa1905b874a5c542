"""A run at a glance: how many, how much, how fast, for how much money, and with what."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.report.columns import Column
from pipeline.report.source import Source

_LANGUAGES_SHOWN = 40
_METRICS_SHOWN = 5


def glance(source: Source) -> dict[str, Any]:
    """Plain values. What no run has told is None: speed and settings of a run that has not ended."""
    status = Counter(source.column("status"))
    run, summary = source.run, _mapping(source.run.get("summary"))
    seconds, frames = summary.get("seconds"), summary.get("frames")
    fps = _mapping(run.get("model")).get("fps")
    rate = frames / seconds if frames and seconds else None
    return {
        "output": source.name,
        "ended": source.ended,
        "finished_at": run.get("finished_at"),
        "manifest": run.get("manifest"),
        "items": source.table.num_rows,
        "ok": status["ok"],
        "failed": status["failed"],
        "skipped": status["skipped"],
        "reused": sum(map(bool, source.column("reused"))),
        "video_minutes": round(sum(value or 0.0 for value in source.column("duration_s")) / 60, 2),
        "video_bytes": sum(value or 0 for value in source.column("size_bytes")),
        "run_seconds": seconds,
        "run_frames": frames,
        "frames_per_s": round(rate, 2) if rate else None,
        "times_real_time": round(rate / fps, 3) if rate and fps else None,
        "cost": summary.get("cost"),
        "set_metrics": _set_metrics(source.sets),
        "weights": summary.get("weights") or next(filter(None, source.column("weights")), None),
        "model": _mapping(run.get("model")),
        "settings": _mapping(run.get("settings")),
        "versions": _mapping(run.get("versions")),
        "computed": _mapping(summary.get("computed")),
        "stages": _mapping(summary.get("stages")),
    }


def by_language(source: Source, columns: Sequence[tuple[Column, np.ndarray]]) -> dict[str, Any] | None:
    """Counts, minutes and medians of some metrics by language, most items first; None without languages."""
    languages = source.column("language")
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, language in enumerate(languages):
        rows[str(language or "")].append(row)
    if set(rows) == {""}:
        return None
    status, seconds = source.column("status"), source.column("duration_s")
    metrics = [(column, values) for column, values in columns if column.group == "quality"][:_METRICS_SHOWN]
    groups = []
    for language in sorted(rows, key=lambda name: (-len(rows[name]), name)):
        members = rows[language]
        states = Counter(status[row] for row in members)
        groups.append(
            {
                "language": language,
                "items": len(members),
                "ok": states["ok"],
                "failed": states["failed"],
                "video_minutes": round(sum(seconds[row] or 0.0 for row in members) / 60, 2),
                "medians": [_median(values[members]) for _, values in metrics],
            }
        )
    return {
        "metrics": [column.name for column, _ in metrics],
        "languages": groups[:_LANGUAGES_SHOWN],
        "left_out": max(len(groups) - _LANGUAGES_SHOWN, 0),
    }


def _set_metrics(sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """FID and FVD, as far as they were measured, with the reference and how many samples of either set they are of."""
    samples = _mapping(sets.get("samples"))
    ours, theirs = (_mapping(samples.get(name)) for name in ("output", "reference"))
    return [
        {
            "name": name.upper(),
            "value": value,
            "reference": str(sets.get("reference")),
            "unit": unit,
            "samples": _number(ours.get(unit)),
            "reference_samples": _number(theirs.get(unit)),
            "measured_at": sets.get("measured_at"),
        }
        for name, unit in (("fid", "frames"), ("fvd", "clips"))
        if (value := _number(sets.get(name))) is not None
    ]


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and np.isfinite(value) else None


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
