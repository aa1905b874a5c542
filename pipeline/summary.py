"""The end of a run: the results table, run.json, and the counts."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from heapq import nsmallest
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from manifests.reader import Manifest
from pipeline.accounting.item_usage import joining_usage, own_usage
from pipeline.accounting.price import Price, cost
from pipeline.accounting.stage_times import StageTimes
from pipeline.accounting.telemetry import Times
from pipeline.accounting.timeline import Timeline, timeline
from pipeline.accounting.usage import RENDER, Share, Usage, shares, total, used
from pipeline.config import RunSettings
from pipeline.errors import CannotRun, ErrorRecord
from pipeline.ledger import Record, now
from pipeline.machines.resources import Placement, reserved
from pipeline.plan import Plan
from pipeline.records.index import RecordIndex
from pipeline.records.results import ScatteredRows, beside, write_results
from pipeline.records.row import results_row, skipped_row
from pipeline.reuse.cache import CacheSummary
from pipeline.storage import Store
from pipeline.talker import TalkerInfo
from pipeline.tasks import AssetTask, ItemTask, Task

_FAILURES_SHOWN = 20


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
    copied: int
    """Items that got the video of another id or request, whose frames are the same."""
    cache: CacheSummary
    frames: int
    seconds: float
    weights: str
    results: str | None
    first_failures: list[dict[str, str]] = field(default_factory=list)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    """By stage: workers, their seconds busy and waiting, and seconds of CPUs and GPUs."""
    reserved: dict[str, float] = field(default_factory=dict)
    """``cpu_s`` and ``gpu_s``: what the run kept from others, from its start to its end."""
    cost: dict[str, Any] | None = None
    """Money, where the job has a price: ``currency``, ``used``, ``reserved``, ``per_video_minute``."""
    signature: dict[str, Any] | None = None
    """Who signed what this run made: `Signing.facts`; None where nothing is signed."""

    @property
    def exit_code(self) -> int:
        return 3 if self.failed else 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Work:
    """What a run has computed."""

    computed: Counter[str] = field(default_factory=Counter)
    """How often each stage computed a result rather than reusing one."""
    frames: int = 0
    copied: int = 0
    used: set[str] = field(default_factory=set)
    """Cached results that were made or read."""
    cache: CacheSummary = field(default_factory=CacheSummary)
    video_s: float = 0.0
    times: StageTimes = field(default_factory=StageTimes)
    placement: Placement | None = None
    """Where the run's actors are; None for a run that had nothing to make."""
    signature: dict[str, Any] | None = None
    """Who signs the run's videos."""

    @property
    def shares(self) -> dict[str, Share]:
        return shares(self.placement) if self.placement else {}

    def count_asset(self, asset: AssetTask) -> Times:
        """Count what was made of a file; its workers' times."""
        self.computed.update(asset.computed)
        self.used.update(key for key in (asset.picture, asset.arrays) if key is not None)
        given = self.shares
        return self._timed(asset, {stage: used(seconds, given[stage]) for stage, seconds in asset.seconds.items()})

    def count_item(self, item: ItemTask) -> Times:
        """Count an item; its workers' times."""
        self.computed.update({*item.computed} & {"motion", "render"})
        if item.motion is not None:
            self.used.add(item.motion)
        if item.video is not None and item.error is None:
            self.frames += item.video["frames"]
            self.video_s += item.video["duration_s"]
        usages = own_usage(item)
        if item.parts:
            # They have been counted as they came; joining took no worker of the stage.
            usages.pop(RENDER, None)
            self.times.add(RENDER, joining_usage(item), None)
        return self._timed(item, usages)

    def count_part(self, task: ItemTask) -> Times:
        """Count a part of an item; its worker's times."""
        return self._timed(task, {stage: usage for stage, usage in own_usage(task).items() if stage == RENDER})

    def _timed(self, task: Task, usages: Mapping[str, Usage]) -> Times:
        return {
            stage: (usage.busy_s, self.times.add(stage, usage, task.workers.get(stage)))
            for stage, usage in usages.items()
        }

    def reserved(self, seconds: float) -> Usage:
        """What the run kept from others for so long."""
        cpus, gpus = reserved(self.placement) if self.placement else (0.0, 0.0)
        return Usage(busy_s=seconds, cpu_s=cpus * seconds, gpu_s=gpus * seconds)


def finish(
    manifest: Manifest,
    plan: Plan,
    work: Work,
    store: Store,
    settings: RunSettings,
    info: TalkerInfo,
    seconds: float,
    price: Price | None = None,
) -> RunSummary:
    """Write results.parquet (one row for each manifest row, in order) and run.json, from the records.

    Raises CannotRun should the counts not add up.
    """
    tally = _Tally()
    with TemporaryDirectory(prefix="imtalker-rows-") as folder:
        rows = ScatteredRows(Path(folder))
        for some in _some_at_a_time(_rows(manifest, plan, RecordIndex(store), price)):
            rows.add(some)
            tally.add(some)
        # Before anything is written: a table with holes is none.
        summary = _summary(len(manifest.rows), tally, work, store, info, seconds, price)
        write_results(store, _with_user_columns(rows.in_order(), manifest))
    times = timeline(work.times.worked)
    store.put_bytes("run.json", _run_json(manifest, settings, info, plan, summary, price, times))
    return summary


_Placed = tuple[int, dict[str, Any]]
_AT_A_TIME = 1000
_AS_GIVEN = ("image", "audio", "driver", "language", "consent", "same_identity")
"""Columns of the manifest that stand in the results, besides the user's own."""


def _rows(manifest: Manifest, plan: Plan, index: RecordIndex, price: Price | None) -> Iterator[_Placed]:
    """The row of every manifest row, with its place, in any order."""

    def placed(at: int, row: dict[str, Any]) -> _Placed:
        given = manifest.rows[at]
        return at, row | {name: getattr(given, name) for name in _AS_GIVEN}

    def failed(at: int, error: ErrorRecord) -> _Placed:
        record = Record(id=manifest.rows[at].id, index=at, status="failed", error=error)
        return placed(at, results_row(record, reused=False))

    for at, reason in plan.skipped.items():
        yield placed(at, skipped_row(manifest.rows[at].id, reason))
    for row, error in plan.invalid:
        yield failed(row.index, error)
    copied = {item.index for item, _ in plan.copies}
    made = (*copied, *(item.index for item in plan.items))
    attempted = {manifest.rows[at].key: at for at in (*plan.done, *made)}
    for key, record in index.records(attempted.keys()):
        at = attempted.pop(key)
        reused = (at in plan.done or at in copied) and record.status == "ok"
        yield placed(at, results_row(record, reused=reused, price=price))
    for key, at in attempted.items():
        message = f"the record can't be read back: {index.url(key)}"
        yield failed(at, ErrorRecord("infrastructure", "render", message, "run again"))


def _some_at_a_time(rows: Iterator[_Placed]) -> Iterator[list[_Placed]]:
    while some := list(islice(rows, _AT_A_TIME)):
        yield some


def _with_user_columns(tables: Iterable[pa.Table], manifest: Manifest) -> Iterator[pa.Table]:
    start = 0
    for table in tables:
        yield beside(table, manifest.extra.slice(start, table.num_rows))
        start += table.num_rows


@dataclass
class _Tally:
    """Counts of rows that are not kept."""

    status: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    reused: int = 0
    failures: list[_Placed] = field(default_factory=list)
    """The first ones in the manifest."""

    def add(self, rows: list[_Placed]) -> None:
        failures = [(at, row) for at, row in rows if row["status"] == "failed"]
        self.status.update(row["status"] for _, row in rows)
        self.errors.update(row["error_kind"] for _, row in failures)
        self.reused += sum(row["reused"] for _, row in rows)
        self.failures = nsmallest(_FAILURES_SHOWN, [*self.failures, *failures], key=itemgetter(0))


def _summary(
    rows: int, tally: _Tally, work: Work, store: Store, info: TalkerInfo, seconds: float, price: Price | None
) -> RunSummary:
    status = tally.status
    kept, spent = work.reserved(seconds), total(work.times.usage.values())
    if status["ok"] + status["failed"] + status["skipped"] != rows:
        raise CannotRun(f"the results do not add up: {dict(status)} for {rows} rows; please report this")
    return RunSummary(
        output=store.uri,
        rows=rows,
        ok=status["ok"],
        failed=status["failed"],
        skipped=status["skipped"],
        reused=tally.reused,
        errors=dict(tally.errors),
        computed=dict(work.computed),
        copied=work.copied,
        cache=work.cache,
        frames=work.frames,
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
            for _, row in tally.failures
        ],
        stages=work.times.as_dict(),
        reserved={"cpu_s": round(kept.cpu_s, 2), "gpu_s": round(kept.gpu_s, 2)},
        signature=work.signature,
        cost=cost(price, spent, kept, work.video_s) if price else None,
    )


def _run_json(
    manifest: Manifest,
    settings: RunSettings,
    info: TalkerInfo,
    plan: Plan,
    summary: RunSummary,
    price: Price | None,
    times: Timeline | None,
) -> bytes:
    # Storage options may hold credentials.
    content = {
        "manifest": manifest.uri,
        "settings": settings.model_dump(exclude={"storage_options", "signing"}),
        "model": asdict(info),
        "price": price.model_dump() if price else None,
        "plan": plan.as_dict(),
        "summary": summary.as_dict(),
        "timeline": times.as_dict() if times else None,
        "versions": {
            "python": platform.python_version(),
            **package_versions("imtalker", "torch", "transformers", "ray", "av"),
        },
        "finished_at": now(),
    }
    return json.dumps(content, indent=1).encode()


def package_versions(*packages: str) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
