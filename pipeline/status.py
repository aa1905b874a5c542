"""What became of a run's items, from its records: for a run that is going on, or one that is long over."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.errors import CannotRun
from pipeline.record_index import RecordIndex
from pipeline.storage import Store


def read_status(output: str, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Counts of records by status and kind of failure, and what they hold. Raises CannotRun where there are none."""
    store = Store(output, storage_options or {})
    status: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    frames, seconds, last = 0, 0.0, ""
    for _, record in RecordIndex(store).records():
        status[record.status] += 1
        last = max(last, record.finished_at or "")
        if record.error is not None:
            kinds[record.error.kind] += 1
        if record.video is not None:
            frames += record.video["frames"]
            seconds += record.video["duration_s"]
    if not status:
        raise CannotRun(f"{output} holds no records of a run (items/*.json)")
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
    }
