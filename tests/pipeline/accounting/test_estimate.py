"""Estimates from records whose times are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.accounting.estimate import estimate
from pipeline.accounting.price import Price
from pipeline.config import RunSettings
from pipeline.ledger import Record
from pipeline.records.index import RecordIndex
from pipeline.storage import Store

SETTINGS = RunSettings(precision="float16")
PRICE = Price(gpu_hour=2.0, currency="EUR")


def record(id: str, start: float, end: float, **changes: Any) -> Record:
    gpu = changes.pop("gpu", "L4")
    worker = {"pid": changes.pop("pid", 1), "node": "n", "gpus": "0", "gpu": gpu, "started_at": start, "ended_at": end}
    return Record.model_validate(
        {
            **{"id": id, "index": 0, "status": "ok", "model": "imtalker", "precision": "float16", "fence": 1},
            **{"video": {"duration_s": 36.0, "frames": 900}, "workers": {"render": worker}},
            **{"usage": {"render": {"busy_s": 10, "cpu_s": 72, "gpu_s": 36}}},
            **changes,
        }
    )


class Output:
    """Records of runs that are over."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder), {})

    def write(self, made: Record) -> None:
        self.store.put_bytes(f"items/{made.id}.json", made.model_dump_json().encode())


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path)


def estimated(output: Output, items: int = 100, price: Price | None = PRICE) -> list[dict[str, Any]]:
    return estimate(items, RecordIndex(output.store), SETTINGS, price)


def test_a_hundred_items_take_fifty_times_what_two_took(output: Output) -> None:
    output.write(record("a", 1000.0, 1036.0))
    output.write(record("b", 1000.0, 1072.0, pid=2))
    (found,) = estimated(output)
    text = found.pop("text")
    assert found == {
        **{"device": "L4", "from_items": 2, "renderers": 2, "hours": 1.0, "video_hours": 1.0},
        **{"cpu_hours": 2.0, "gpu_hours": 1.0, "cost": 2.0, "currency": "EUR"},
    }
    assert "1.00 h with 2 renderers" in text
    assert "2.00 EUR" in text
    assert "cost" not in estimated(output, price=None)[0]


def test_kinds_of_device_are_kept_apart_and_the_larger_run_counts(output: Output) -> None:
    output.write(record("cpu", 0.0, 100.0, gpu=""))
    output.write(record("few", 0.0, 999.0, fence=2))
    for i in range(3):
        output.write(record(f"many-{i}", 10.0 * i, 10.0 * i + 10, fence=3))
    found = {entry["device"]: entry for entry in estimated(output, items=3)}
    assert found["L4"]["from_items"] == 3
    assert found["L4"]["hours"] == round(30 / 3600, 4)
    assert found["CPU"]["from_items"] == 1


@pytest.mark.parametrize(
    "changes", [{"precision": "float32"}, {"model": "imtalker-tiny"}, {"usage": {}}, {"status": "failed"}]
)
def test_what_is_not_alike_is_no_calibration(output: Output, changes: dict[str, Any]) -> None:
    output.write(record("a", 0.0, 1.0, **changes))
    (found,) = estimated(output)
    assert found["device"] is None
    assert "--limit 5" in found["text"]


def test_nothing_to_make_takes_nothing(output: Output) -> None:
    assert estimated(output, items=0) == []
