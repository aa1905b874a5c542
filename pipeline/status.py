"""What became of a run's items, from its records: for a run that is going on, or one that is long over."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from pipeline.accounting.price import Price, cost, cost_line
from pipeline.accounting.stage_times import StageTimes, stage_lines
from pipeline.accounting.usage import Usage, total
from pipeline.errors import CannotRun
from pipeline.records.index import RecordIndex
from pipeline.storage import Store
from pipeline.tasks import Worker


def read_status(
    output: str, storage_options: dict[str, Any] | None = None, price: Price | None = None
) -> dict[str, Any]:
    """Counts of records by status and kind of failure, and what they hold, of all runs into ``output`` together.

    ``price``: else the one of the last run that ended. Raises CannotRun where there are no records.
    """
    store = Store(output, storage_options or {})
    status: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    frames, seconds, last = 0, 0.0, ""
    worked: list[tuple[str, Usage, Worker | None]] = []
    for _, record in RecordIndex(store).records():
        status[record.status] += 1
        last = max(last, record.finished_at or "")
        if record.error is not None:
            kinds[record.error.kind] += 1
        if record.video is not None:
            frames += record.video["frames"]
            seconds += record.video["duration_s"]
        worked += [(stage, usage, record.workers.get(stage)) for stage, usage in record.usage.items()]
    if not status:
        raise CannotRun(f"{output} holds no records of a run (items/*.json)")
    times = _times(worked)
    price = price or _last_price(store)
    return {
        "output": store.uri,
        "items": status.total(),
        "ok": status["ok"],
        "failed": status["failed"],
        "failed_by_kind": dict(kinds),
        "frames": frames,
        "video_seconds": round(seconds, 2),
        "last_record": last,
        "finished": store.exists("results.parquet"),
        "stages": times.as_dict(),
        "cost": cost(price, total(times.usage.values()), None, seconds) if price else None,
    }


def status_text(facts: dict[str, Any]) -> str:
    """`read_status` for people."""
    plain = {name: value for name, value in facts.items() if name not in ("stages", "cost")}
    lines = [f"{name.replace('_', ' '):<22}{value}" for name, value in plain.items()]
    lines += [f"{'stage':<22}{line}" for line in stage_lines(facts["stages"])]
    if facts["cost"]:
        lines.append(f"{'cost':<22}{cost_line(facts['cost'])}")
    return "\n".join(lines)


def _times(worked: list[tuple[str, Usage, Worker | None]]) -> StageTimes:
    times = StageTimes()
    for stage, usage, worker in sorted(worked, key=lambda one: (one[2] and one[2].started_at) or 0.0):
        times.add(stage, usage, worker)
    return times


def _last_price(store: Store) -> Price | None:
    try:
        found = json.loads(store.get_bytes("run.json")).get("price")
    except FileNotFoundError:
        return None
    return Price.model_validate(found) if found else None
