"""The end of a run: the results table, run.json, and the counts."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from manifests.reader import Manifest
from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.ledger import Record, now, results_row, results_table, skipped_row, write_results
from pipeline.plan import Plan
from pipeline.storage import Store
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetTask


@dataclass
class RunSummary:
    """What a run did. ``rows == ok + failed + skipped`` always holds."""

    output: str
    rows: int
    ok: int
    failed: int
    skipped: int
    reused: int
    """How many of the ok ones an earlier run made."""
    errors: dict[str, int]
    """Failures by kind."""
    computed: dict[str, int]
    """How often each stage computed a result rather than reusing one."""
    frames: int
    seconds: float
    weights: str
    results: str | None
    first_failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def finish(
    manifest: Manifest,
    plan: Plan,
    records: dict[int, Record],
    assets: Iterable[AssetTask],
    store: Store,
    settings: RunSettings,
    info: TalkerInfo,
    seconds: float,
) -> RunSummary:
    """Write results.parquet (one row for each manifest row, in order) and run.json.

    ``records`` are this run's, by row. Raises CannotRun should the counts not add up.
    """
    rows: list[dict[str, Any]] = []
    invalid = {row.index: error for row, error in plan.invalid}
    for row in manifest.rows:
        if row.index in plan.skipped:
            rows.append(skipped_row(row.id, plan.skipped[row.index]))
        elif row.index in invalid:
            record = Record(id=row.id, index=row.index, status="failed", error=invalid[row.index])
            rows.append(results_row(record, reused=False))
        else:
            reused = row.index in plan.done
            record = plan.done[row.index] if reused else records[row.index]
            rows.append(results_row(record, reused=reused and record.status == "ok"))
        rows[-1] |= {role: getattr(row, role) for role in ("image", "audio", "driver", "language")}
    write_results(store, results_table(rows, manifest.extra))
    summary = _summary(rows, assets, records, store, info, seconds)
    store.put_bytes("run.json", _run_json(manifest, settings, info, plan, summary))
    return summary


def _summary(
    rows: list[dict[str, Any]],
    assets: Iterable[AssetTask],
    records: dict[int, Record],
    store: Store,
    info: TalkerInfo,
    seconds: float,
) -> RunSummary:
    status = Counter(row["status"] for row in rows)
    if status["ok"] + status["failed"] + status["skipped"] != len(rows):
        raise CannotRun(f"the results do not add up: {dict(status)} for {len(rows)} rows; please report this")
    computed: Counter[str] = Counter()
    for asset in assets:
        computed.update(asset.computed)
    for record in records.values():
        computed.update(stage for stage in record.computed if stage in ("motion", "render"))
    failures = [row for row in rows if row["status"] == "failed"]
    return RunSummary(
        output=store.uri,
        rows=len(rows),
        ok=status["ok"],
        failed=status["failed"],
        skipped=status["skipped"],
        reused=sum(row["reused"] for row in rows),
        errors=dict(Counter(row["error_kind"] for row in failures)),
        computed=dict(computed),
        frames=sum(record.video["frames"] for record in records.values() if record.video),
        seconds=round(seconds, 2),
        weights=info.weights,
        results=store.url("results.parquet"),
        first_failures=[
            {
                "id": row["id"],
                "kind": row["error_kind"],
                "stage": row["error_stage"],
                "message": row["error_message"],
                "hint": row["error_hint"],
            }
            for row in failures[:20]
        ],
    )


def _run_json(manifest: Manifest, settings: RunSettings, info: TalkerInfo, plan: Plan, summary: RunSummary) -> bytes:
    # Storage options may hold credentials.
    content = {
        "manifest": manifest.uri,
        "settings": settings.model_dump(exclude={"storage_options"}),
        "model": asdict(info),
        "plan": plan.summary(),
        "summary": summary.as_dict(),
        "versions": {
            "python": platform.python_version(),
            **_versions("imtalker", "torch", "transformers", "ray", "av"),
        },
        "finished_at": now(),
    }
    return json.dumps(content, indent=1).encode()


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
