"""What a run says it used and cost: items, stages, run.json, status and the estimate agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.accounting.estimate import estimate
from pipeline.accounting.price import Price
from pipeline.execute import in_process
from pipeline.ledger import STAGES
from pipeline.progress import RunProgress, summary_lines
from pipeline.records.index import RecordIndex
from pipeline.run import load_manifest, prepare, run
from pipeline.status import read_status, status_text
from pipeline.storage import Store
from pipeline.summary import RunSummary
from tests.pipeline.test_run import AUDIO_ROW
from tests.runs import TINY, results, write_manifest

PRICE = Price(gpu_hour=1.0, cpu_hour=36.0, currency="EUR")
CPU_S = 0.01
"""A CPU second's price."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    """Two items of one portrait and one recording."""
    folder = tmp_path_factory.mktemp("cost")
    manifest = write_manifest(folder, [{**AUDIO_ROW, "id": "one", "seed": 1}, {**AUDIO_ROW, "id": "two", "seed": 2}])
    with RunProgress(Console(quiet=True), 60) as progress:
        read = load_manifest(manifest, TINY)
        summary = run(read, TINY, prepare(TINY), str(folder / "out"), in_process, progress, price=PRICE)
    return folder / "out", summary


def stage_sum(rows: dict[str, dict[str, Any]], stage: str, what: str) -> float:
    return sum(row[f"{stage}_{what}"] for row in rows.values())


def test_items_together_used_what_the_stages_did(made: tuple[Path, RunSummary]) -> None:
    output, summary = made
    rows = results(output)
    for stage in STAGES:
        assert summary.stages[stage]["cpu_s"] == pytest.approx(stage_sum(rows, stage, "cpu_s"), abs=0.011)
        assert summary.stages[stage]["gpu_s"] == stage_sum(rows, stage, "gpu_s") == 0
        assert summary.stages[stage]["workers"] == 1
    # The portrait was cropped once, and each item bears half of it, though its time stands in both rows.
    assert rows["one"]["crop_s"] == rows["two"]["crop_s"]
    assert rows["one"]["crop_cpu_s"] == rows["two"]["crop_cpu_s"]
    assert summary.stages["crop"]["busy_s"] == pytest.approx(rows["one"]["crop_s"], abs=0.011)


def test_money_is_seconds_times_price(made: tuple[Path, RunSummary]) -> None:
    output, summary = made
    rows = results(output)
    for row in rows.values():
        assert row["cost"] == pytest.approx(row["cpu_s"] * CPU_S, abs=1e-5)
    assert summary.cost is not None
    assert summary.cost["used"] == pytest.approx(sum(row["cost"] for row in rows.values()), abs=1e-3)
    assert summary.cost["reserved"] == pytest.approx(summary.reserved["cpu_s"] * CPU_S, abs=1e-3)
    assert summary.cost["reserved"] >= summary.cost["used"]
    assert summary.cost["per_video_minute"] == pytest.approx(summary.cost["reserved"] / 0.8 * 60, rel=1e-3)
    assert any(line.startswith("cost") and "EUR" in line for line in summary_lines(summary))


def test_run_json_and_status_tell_the_same(made: tuple[Path, RunSummary]) -> None:
    output, summary = made
    stored = json.loads((output / "run.json").read_text())
    assert stored["price"] == PRICE.model_dump()
    assert stored["summary"]["cost"] == summary.cost
    assert stored["summary"]["stages"] == summary.stages
    status = read_status(str(output))
    assert summary.cost is not None
    assert status["cost"]["used"] == pytest.approx(summary.cost["used"], abs=1e-3)
    for stage in STAGES:
        facts = dict(summary.stages[stage])
        if stage in ("crop", "features"):
            # A record names one worker of its files, so that waits between files of one item are not seen.
            facts["waiting_s"] = status["stages"][stage]["waiting_s"]
        assert status["stages"][stage] == pytest.approx(facts, abs=0.011)
    assert "stage                 render   busy" in status_text(status)
    assert read_status(str(output), price=Price(cpu_hour=72.0))["cost"]["currency"] == "USD"


def test_as_many_items_again_are_estimated_to_take_as_much(made: tuple[Path, RunSummary]) -> None:
    output, summary = made
    (found,) = estimate(2, RecordIndex(Store(str(output), {})), TINY, PRICE)
    assert (found["device"], found["from_items"], found["renderers"]) == ("CPU", 2, 1)
    assert summary.cost is not None
    assert found["cost"] == pytest.approx(summary.cost["used"], abs=1e-3)
    assert found["hours"] * 3600 <= summary.seconds + 0.5
