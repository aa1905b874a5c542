"""Metrics of a finished run: measured from the stored videos, judged anew, and nothing rendered."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from imtalker.files import file_sha256
from pipeline.config import RunSettings
from pipeline.errors import CannotRun, ErrorRecord
from pipeline.execute import in_process
from pipeline.ledger import Ledger, Record
from pipeline.metrics import face_mesh, rendering
from pipeline.metrics.again import MeasureSummary, last_settings, measure_again
from pipeline.metrics.arcface import IResNet
from pipeline.metrics.landmarks import Trackers
from pipeline.metrics.lse import expert
from pipeline.metrics.syncnet import SyncNet
from pipeline.progress import RunProgress
from pipeline.records.row import RESULTS_SCHEMA, results_row
from pipeline.stages import measure, render
from pipeline.storage import Store
from tests.pipeline.metrics.faces import MadeUp, face
from tests.pipeline.metrics.walker import FRAMES, INFO, SETTINGS, Walker, stage, task

OFF = {
    "mouth_silence_ratio": {"action": "off"},
    "lip_correlation": {"action": "off"},
    "lip_lag_frames": {"action": "off"},
    "portrait_distance": {"action": "off"},
}


class Still(Walker):
    """Never renders."""

    def render(self, prepared: Any, motion: Any) -> Any:
        raise AssertionError("nothing is to be rendered")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output with two videos that were not measured, and an item that failed."""
    monkeypatch.setattr(render, "load", lambda model, settings, info: Walker())
    monkeypatch.setattr(measure, "load", lambda model, settings, info: Still())
    settings = SETTINGS.model_copy(update={"metrics": "off"})
    renderer = stage(tmp_path, settings)
    for name in ("a", "b"):
        renderer.run(task(tmp_path, name))
    ledger = Ledger(Store(str(tmp_path), {}))
    ledger.write(Record(id="c", index=2, status="failed", error=ErrorRecord("input", "crop", "no face", "another")))
    rows = [results_row(record, reused=False) for record in ledger.read(["a", "b", "c"]).values()]
    table = pa.Table.from_pylist(rows, schema=RESULTS_SCHEMA)
    pq.write_table(table.append_column("title", pa.array(["first", "second", "third"])), tmp_path / "results.parquet")
    run = {
        "settings": settings.model_dump(exclude={"storage_options"}),
        "model": asdict(INFO),
        "summary": {"rows": 3, "ok": 2, "failed": 1, "skipped": 0, "errors": {"input": 1}},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    return tmp_path


def again(output: Path, every: bool = False, **changes: Any) -> MeasureSummary:
    settings, info = last_settings(Store(str(output), {}))
    values = settings.model_dump() | {"metrics": "basic", "gates": OFF} | changes
    with RunProgress(Console(quiet=True), 60) as progress:
        return measure_again(str(output), RunSettings.model_validate(values), info, in_process, progress, every=every)


def rows(output: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pq.read_table(output / "results.parquet").to_pylist()}


def test_what_is_missing_is_measured_once_and_all_else_stays(finished: Path) -> None:
    before = rows(finished)
    videos = {path: path.stat().st_mtime_ns for path in (finished / "videos").iterdir()}
    found = again(finished)
    assert (found.items, found.measured, found.had_metrics, found.exit_code) == (2, 2, 0, 0)
    after = rows(finished)
    assert list(after) == ["a", "b", "c"]
    for id in ("a", "b"):
        assert after[id]["metrics_from"] == "video"
        assert (after[id]["frames_missing"], after[id]["codes_checked"]) == (0, FRAMES // 40)
        assert after[id]["code_distance"] == 0
        assert after[id]["audio_correlation"] > 0.95
        assert abs(after[id]["brightness_shift"]) < 2
        same = [name for name in before[id] if name not in after[id] or before[id][name] == after[id][name]]
        assert {"sha256", "frames_sha256", "title", "status", "finished_at", "fingerprint"} <= set(same)
    assert after["c"] == before["c"]
    assert {path: path.stat().st_mtime_ns for path in videos} == videos
    assert pq.read_schema(finished / "results.parquet").names[-1] == "title"
    repeated = again(finished)
    assert (repeated.measured, repeated.had_metrics) == (0, 2)
    assert again(finished, every=True).measured == 2


def test_other_gates_judge_without_measuring_and_back(finished: Path) -> None:
    again(finished)
    strict = again(finished, gates={**OFF, "head_range": {"max": 0.01, "action": "fail"}})
    assert (strict.measured, strict.failed_quality, strict.exit_code) == (0, 2, 3)
    assert strict.flags == {"gate:head_range": 2}
    judged = rows(finished)
    assert [judged[id]["error_kind"] for id in ("a", "b", "c")] == ["quality", "quality", "input"]
    assert json.loads((finished / "run.json").read_text())["summary"]["errors"] == {"quality": 2, "input": 1}
    mild = again(finished)
    assert (mild.failed_quality, mild.exit_code) == (0, 0)
    assert [row["status"] for row in rows(finished).values()] == ["ok", "ok", "failed"]
    assert json.loads((finished / "run.json").read_text())["summary"]["ok"] == 2


def test_syncnets_weights_add_its_measures_and_are_remembered(finished: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    again(finished)
    assert rows(finished)["a"]["lse_d"] is None
    weights = tmp_path / "syncnet_v2.model"
    torch.save(SyncNet().state_dict(), weights)
    named = {"metric_weights": {"syncnet": str(weights)}}
    assert again(finished, **named).measured == 2
    row = rows(finished)["a"]
    assert row["syncnet_sha256"] == file_sha256(weights)
    assert row["lse_d"] > 0 and row["lse_c"] >= 0 and abs(row["lse_offset_frames"]) <= 15
    assert again(finished, **named).measured == 0
    weights.write_bytes(b"no weights")
    expert.cache_clear()
    with pytest.raises(CannotRun, match=r"metric_weights\.syncnet: .*syncnet_v2\.model"):
        again(finished, **named)


def test_arcfaces_weights_add_its_measures(finished: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "backbone.pth"
    torch.save(IResNet((2, 2, 2, 2)).state_dict(), weights)
    named = {"metric_weights": {"arcface": str(weights)}}
    assert again(finished, **named).measured == 2
    row = rows(finished)["a"]
    assert row["arcface_sha256"] == file_sha256(weights)
    assert -1 <= row["csim_worst"] <= row["csim"] <= 1
    assert again(finished, **named).measured == 0


def test_landmarks_that_could_be_had_by_now_are_looked_for_once(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert again(finished, metrics="full").measured == 2
    before = rows(finished)["a"]
    assert (before["mouth_from"], before["landmarks_found"]) == ("pixels", None)
    monkeypatch.setattr(face_mesh, "wanted", lambda settings: True)
    trackers = Trackers(lambda: MadeUp(face(lips=np.linspace(0, 0.1, FRAMES).tolist())))
    monkeypatch.setattr(rendering, "landmark_trackers", lambda settings: trackers)
    assert again(finished, metrics="full").measured == 2
    row = rows(finished)["a"]
    assert (row["mouth_from"], row["landmarks_found"], row["blinks_a_minute"]) == ("landmarks", 1, 0)
    assert row["lip_range"] == pytest.approx(0.09)
    assert row["mouth_range"] == before["mouth_range"]
    assert "lip_aperture" in pq.read_schema(finished / "metrics" / "a.parquet").names
    assert again(finished, metrics="full").measured == 0


def test_without_cache_recording_and_weights_the_rest_is_measured(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*arguments: Any) -> None:
        raise CannotRun("no weights here")

    monkeypatch.setattr(measure, "load", absent)
    for path in (*(finished / "cache").iterdir(), finished / "sound.wav"):
        path.unlink()
    assert again(finished).measured == 2
    row = rows(finished)["a"]
    for name in ("brightness_shift", "sharpness_ratio", "identity_distance", "seam_step", "lip_lag_frames"):
        assert row[name] is None, name
    assert row["codes_checked"] == 0
    assert row["black_frames"] == 0
    assert row["head_range"] > 0.05


def test_a_video_that_is_not_its_records_is_said_and_takes_no_other_with_it(finished: Path) -> None:
    with (finished / "videos" / "a.mp4").open("ab") as file:
        file.write(b"more")
    found = again(finished)
    assert (found.measured, found.not_measured, found.exit_code) == (1, 1, 3)
    assert found.first_failures[0]["id"] == "a"
    assert "not what its record says" in found.first_failures[0]["message"]
    assert [row["metrics_level"] for row in rows(finished).values()] == [None, "basic", None]


def test_an_output_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"no run\.json"):
        last_settings(Store(str(tmp_path), {}))
