"""Metrics of a finished run: what is missing or of older definitions is measured, everything is judged anew."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.execute import Context, Executor, lost, through
from pipeline.ledger import Ledger, Record
from pipeline.locks.claims import Claims
from pipeline.locks.lease import Lease, leased
from pipeline.metrics import face_mesh
from pipeline.metrics.catalogue import AGAINST_DRIVER, METRICS, VERSION, Values
from pipeline.metrics.experts import given_weights
from pipeline.metrics.verdict import judged
from pipeline.progress import RunProgress
from pipeline.records.index import RecordIndex
from pipeline.records.results import write_results
from pipeline.records.row import RESULTS_SCHEMA, results_row
from pipeline.stages.measure import MeasureStage, MeasureTask
from pipeline.storage import Store
from pipeline.talker import TalkerInfo

_REWRITTEN = ("status", "error_kind", "error_stage", "error_message", "error_hint", "error_trace", "flags",
              *(metric.name for metric in METRICS))  # fmt: skip


@dataclass
class MeasureSummary:
    """What was done; ``items`` are those that have a video."""

    output: str
    items: int = 0
    measured: int = 0
    had_metrics: int = 0
    failed_quality: int = 0
    not_measured: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    first_failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 3 if self.failed_quality or self.not_measured else 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def last_settings(store: Store) -> tuple[RunSettings, TalkerInfo]:
    """Settings and model of the output's last run. Raises CannotRun where no run has ended."""
    try:
        run = json.loads(store.get_bytes("run.json"))
        model = {name: run["model"][name] for name in ("model", "version", "resolution", "fps", "weights")}
        info = TalkerInfo(**model, weights_sha256=run["model"]["weights_sha256"], window=run["model"].get("window"))
        return RunSettings.model_validate(run["settings"]), info
    except FileNotFoundError as exc:
        raise CannotRun(
            f"{store.uri} holds no run.json: metrics are for runs that have ended; run it to its end"
        ) from exc
    except (ValueError, KeyError, TypeError, ValidationError) as exc:
        raise CannotRun(f"{store.url('run.json')} can't be read: {exc}; run again to have it written anew") from exc


def measure_again(
    output: str,
    settings: RunSettings,
    info: TalkerInfo,
    open_executor: Callable[[Context], AbstractContextManager[Executor]],
    progress: RunProgress,
    *,
    every: bool = False,
) -> MeasureSummary:
    """Measure the finished items of ``output`` by ``settings.metrics`` and judge them by ``settings.gates``.

    ``every`` also measures those that have their metrics. Records and the results table are written anew; videos are
    only read. Raises CannotRun where another run works on the output.
    """
    if settings.metrics == "off":
        raise CannotRun("metrics: off measures nothing; give --metrics basic or full")
    weights = given_weights(settings)
    store = Store(output, settings.storage_options, settings.retries)
    with leased(store) as lease:
        index = RecordIndex(store)
        found = MeasureSummary(store.uri)
        wanted = []
        for key, record in index.records():
            if record.video is not None:
                found.items += 1
                if every or _is_missing(record, settings, weights):
                    wanted.append(MeasureTask(key=key, fence=lease.token))
        found.had_metrics = found.items - len(wanted)
        if wanted:
            with open_executor(Context(settings, info, store.uri)) as executor:
                _measure(wanted, executor, progress, lease, Claims(store, "measure"), found)
        _judge(store, lease, settings, found)
        lease.confirm()
        index.compact()
        _rewrite_results(store)
    return found


def _is_missing(record: Record, settings: RunSettings, weights: Values) -> bool:
    known = record.metrics
    too_little = settings.metrics == "full" and known.get("metrics_level") != "full"
    if record.self_reenactment:
        too_little |= "driver_frames_compared" not in known
    else:
        weights = {name: value for name, value in weights.items() if name not in AGAINST_DRIVER}
    otherwise = any(known.get(name) != value for name, value in weights.items())
    unseen = face_mesh.wanted(settings) and known.get("landmarks_found") is None
    return known.get("metrics_version") != VERSION or too_little or otherwise or unseen


def _measure(
    wanted: list[MeasureTask],
    executor: Executor,
    progress: RunProgress,
    lease: Lease,
    claims: Claims,
    found: MeasureSummary,
) -> None:
    def note(task: MeasureTask) -> None:
        lease.check()
        if task.error is None:
            found.measured += 1
        else:
            found.not_measured += 1
            found.first_failures += [{"id": task.key, **task.error.as_dict()}] if found.not_measured <= 20 else []
        progress.advance(failed=task.error is not None)

    progress.begin("metrics", len(wanted))
    for task in through(wanted, (MeasureStage,), executor, note, claims, progress.say, lease.confirm):
        note(task.model_copy(update={"error": lost("measure")}))
        claims.release(task.key)


def _judge(store: Store, lease: Lease, settings: RunSettings, found: MeasureSummary) -> None:
    """Hold every record against the gates; those for which that changes anything are written."""
    ledger, flags = Ledger(store), Counter[str]()
    for key, record in RecordIndex(store).records():
        if record.video is None:
            continue
        now = judged(record, settings.gates)
        if (now.status, now.flags, now.error) != (record.status, record.flags, record.error):
            ledger.write(now.model_copy(update={"fence": lease.token}), key=key)
        flags.update(now.flags)
        found.failed_quality += now.status == "failed"
    found.flags = dict(flags.most_common())


def _rewrite_results(store: Store) -> None:
    """The same table with what measuring and judging may change; counts in run.json follow it."""
    if not store.exists("results.parquet"):
        return
    with TemporaryDirectory(prefix="imtalker-metrics-") as folder:
        path = Path(folder) / "before.parquet"
        store.get_file("results.parquet", path)
        changed = {
            record.id: {name: row[name] for name in _REWRITTEN}
            for _, record in RecordIndex(store).records()
            if record.video is not None
            for row in [results_row(record, reused=False)]
        }
        status: Counter[str] = Counter()
        kinds: Counter[str] = Counter()

        def counted() -> Iterator[pa.Table]:
            for table in _with_changes(path, changed):
                status.update(table["status"].to_pylist())
                kinds.update(kind for kind in table["error_kind"].to_pylist() if kind is not None)
                yield table

        write_results(store, counted())
    run = json.loads(store.get_bytes("run.json"))
    run["summary"] |= {"ok": status["ok"], "failed": status["failed"], "errors": dict(kinds)}
    store.put_bytes("run.json", json.dumps(run, indent=1).encode())


def _with_changes(path: Path, changed: dict[str, dict[str, Any]]) -> Iterator[pa.Table]:
    file = pq.ParquetFile(path)
    for number in range(file.num_row_groups):
        table = file.read_row_group(number)
        ids = table["id"].to_pylist()
        for name in _REWRITTEN:
            field = RESULTS_SCHEMA.field(name)
            before = table[name].to_pylist() if name in table.column_names else [None] * len(ids)
            values = [changed[id][name] if id in changed else old for id, old in zip(ids, before, strict=True)]
            column = pa.array(values, field.type)
            at = table.column_names.index(name) if name in table.column_names else None
            table = table.append_column(field, column) if at is None else table.set_column(at, field, column)
        yield table
