"""What making items will take: by what an earlier run with the same model and precision took, device by device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.accounting.price import HOUR_S, Price
from pipeline.accounting.usage import Usage, total
from pipeline.config import RunSettings
from pipeline.ledger import Record
from pipeline.records.index import RecordIndex

_CPU = "CPU"


@dataclass
class Calibration:
    """What the items of one run on one kind of device took."""

    device: str
    """Name of the GPU that rendered, or ``CPU``."""
    items: int = 0
    usage: Usage = field(default_factory=Usage)
    video_s: float = 0.0
    first_s: float = float("inf")
    last_s: float = 0.0
    renderers: set[tuple[str, int]] = field(default_factory=set)

    @property
    def seconds(self) -> float:
        """From the first item's begin to the last one's end."""
        return max(self.last_s - self.first_s, 0.0)

    def add(self, record: Record) -> None:
        render = record.workers["render"]
        self.items += 1
        self.usage = self.usage + total(record.usage.values())
        self.video_s += (record.video or {}).get("duration_s", 0.0)
        self.renderers.add((render.node, render.pid))
        for worker in record.workers.values():
            if worker.started_at is not None and worker.ended_at is not None:
                self.first_s = min(self.first_s, worker.started_at)
                self.last_s = max(self.last_s, worker.ended_at)


def calibrate(records: Iterable[Record], settings: RunSettings) -> list[Calibration]:
    """One for each kind of device that made items with this model and precision: the run that made most there."""
    runs: dict[tuple[str, int | None], Calibration] = {}
    for record in records:
        render = record.workers.get("render")
        if record.status != "ok" or not record.usage or render is None:
            continue
        if record.model == settings.model and record.precision == settings.precision:
            device = render.gpu or _CPU
            runs.setdefault((device, record.fence), Calibration(device)).add(record)
    best: dict[str, Calibration] = {}
    for found in runs.values():
        if found.device not in best or found.items > best[found.device].items:
            best[found.device] = found
    return [best[device] for device in sorted(best)]


def estimate(items: int, index: RecordIndex, settings: RunSettings, price: Price | None) -> list[dict[str, Any]]:
    """Hours and money that ``items`` will take if they are like those of an earlier run; ``text`` says it in words.

    One entry for each kind of device with records of the same model and precision in ``index``; without any, one that
    says how to come by them. Raises `StorageError`.
    """
    if not items:
        return []
    found = calibrate((record for _, record in index.records()), settings)
    if not found:
        return [
            {
                "device": None,
                "text": f"unknown: no records of {settings.model} in {settings.precision} to go by; "
                "make a few items first (--limit 5), or name an earlier run's output (--calibration)",
            }
        ]
    return [_by(calibration, items, price) for calibration in found]


def _by(calibration: Calibration, items: int, price: Price | None) -> dict[str, Any]:
    times = items / calibration.items
    cpu_s, gpu_s = calibration.usage.cpu_s * times, calibration.usage.gpu_s * times
    facts: dict[str, Any] = {
        "device": calibration.device,
        "from_items": calibration.items,
        "renderers": len(calibration.renderers),
        "hours": round(calibration.seconds * times / HOUR_S, 4),
        "video_hours": round(calibration.video_s * times / HOUR_S, 4),
        "cpu_hours": round(cpu_s / HOUR_S, 4),
        "gpu_hours": round(gpu_s / HOUR_S, 4),
    }
    if price is not None:
        facts |= {"cost": round(price.of(cpu_s, gpu_s), 4), "currency": price.currency}
    return facts | {"text": _text(facts)}


def _text(facts: dict[str, Any]) -> str:
    money = f", {facts['cost']:.2f} {facts['currency']}" if "cost" in facts else ""
    return (
        f"on {facts['device']}: about {facts['hours']:.2f} h with {facts['renderers']} renderers, "
        f"{facts['gpu_hours']:.2f} GPU h, {facts['cpu_hours']:.2f} CPU h{money}; "
        f"by {facts['from_items']} items of an earlier run, if these are like them"
    )
