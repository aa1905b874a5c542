"""What became of a run's items, from its records: for a run that is going on, or one that is long over."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.errors import CannotRun
from pipeline.ledger import Ledger
from pipeline.storage import Store


def read_status(output: str, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Counts of records by status and kind of failure, and what they hold. Raises CannotRun where there are none."""
    store = Store(output, storage_options or {})
    records = Ledger(store).read_all()
    if not records:
        raise CannotRun(f"{output} holds no records of a run (items/*.json)")
    videos = [record.video for record in records if record.video]
    return {
        "output": store.uri,
        "items": len(records),
        "ok": sum(record.status == "ok" for record in records),
        "failed": sum(record.status == "failed" for record in records),
        "failed_by_kind": dict(Counter(record.error.kind for record in records if record.error)),
        "frames": sum(video["frames"] for video in videos),
        "video_seconds": round(sum(video["duration_s"] for video in videos), 2),
        "last_record": max((record.finished_at or "") for record in records),
        "finished": store.exists("results.parquet"),
    }
