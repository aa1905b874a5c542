"""Metrics beside the renderer: what they say, and what they leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.ledger import Ledger, Record
from pipeline.media.verify import measure_video
from pipeline.metrics import voice
from pipeline.metrics.catalogue import METRICS
from pipeline.records.row import results_row
from pipeline.stages import render
from pipeline.storage import Store
from pipeline.talker import Arrays
from tests.pipeline.metrics.walker import FRAMES, SETTINGS, Walker, stage, task


@pytest.fixture
def walker(monkeypatch: pytest.MonkeyPatch) -> Walker:
    walker = Walker()
    monkeypatch.setattr(render, "load", lambda model, settings, info: walker)
    return walker


def made(folder: Path, **settings: Any) -> Record:
    stage(folder, SETTINGS.model_validate(SETTINGS.model_dump() | settings)).run(task(folder))
    return Ledger(Store(str(folder), {})).read(["a"])["a"]


def test_a_sound_item_is_measured_and_passes_its_gates(
    tmp_path: Path, walker: Walker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its sound is tones, which only the level takes for speech.
    monkeypatch.setattr(voice, "installed", lambda: False)
    unlike_people = ("mouth_silence_ratio", "lip_correlation", "lip_lag_frames", "portrait_distance")
    record = made(tmp_path, gates={name: {"action": "off"} for name in unlike_people})
    assert (record.status, record.flags) == ("ok", [])
    row = results_row(record, reused=False)
    missing = {metric.name for metric in METRICS if metric.needs == "basic" and row[metric.name] is None}
    assert missing == set()
    assert row["metrics_level"] == "basic"
    assert (row["frames_missing"], row["black_frames"], row["frozen_frames"], row["nonfinite_values"]) == (0, 0, 0, 0)
    assert row["codes_checked"] == walker.inspected - 1 == FRAMES // 40
    assert row["code_distance"] == 0
    assert row["identity_distance"] == pytest.approx(0, abs=1e-5)
    assert row["seam_step"] == pytest.approx(1)
    assert row["head_range"] * 64 == pytest.approx(8, abs=2)
    assert row["audio_correlation"] > 0.95
    assert abs(row["end_gap_s"]) <= 0.04
    assert row["speech_from"] == "energy"
    assert row["speech_share"] == pytest.approx(0.6, abs=0.1)


def test_a_detector_of_speech_is_listened_to(tmp_path: Path, walker: Walker, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    monkeypatch.setattr(voice.VoiceDetector, "add", lambda detector, samples: heard.append(len(samples)))
    monkeypatch.setattr(voice.VoiceDetector, "pieces", lambda detector: np.array([[0, sum(heard) // 4]]))
    metrics = made(tmp_path).metrics
    assert metrics["speech_from"] == "silero"
    assert metrics["speech_share"] == pytest.approx(0.25, abs=0.02)


def test_measuring_changes_neither_frames_nor_file(tmp_path: Path, walker: Walker) -> None:
    levels = {level: made(tmp_path / level, metrics=level) for level in ("off", "basic", "full")}
    for fact in ("frames_sha256", "sha256"):
        assert len({record.video[fact] for record in levels.values() if record.video}) == 1, fact
    assert levels["off"].metrics == {}
    assert levels["off"].flags == []
    assert levels["full"].metrics["codes_checked"] == FRAMES
    curves = pq.read_table(tmp_path / "full" / "metrics" / "a.parquet")
    assert curves.num_rows == FRAMES
    assert {"mouth_opening", "expected_opening", "sound_db", "code_step", "code_distance"} <= set(curves.column_names)
    assert not (tmp_path / "basic" / "metrics").exists()


class Spoilt(Walker):
    """Frames 16 to 23 are black, frozen, or of another picture."""

    how = "black"

    def defect(self, frames: np.ndarray, start: int) -> np.ndarray:
        if start != 16:
            return frames
        if self.how == "black":
            return np.zeros_like(frames)
        return np.repeat(frames[:1], len(frames), axis=0)


@pytest.mark.parametrize(
    ("how", "metric", "value"), [("black", "black_frames", 8), ("frozen", "frozen_frames", 7)], ids=["black", "frozen"]
)
def test_a_gate_fails_the_item_and_keeps_its_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, metric: str, value: int
) -> None:
    spoilt = Spoilt()
    spoilt.how = how
    monkeypatch.setattr(render, "load", lambda model, settings, info: spoilt)
    record = made(tmp_path, gates={metric: {"max": 0, "action": "fail"}})
    assert record.status == "failed"
    assert record.error is not None
    assert (record.error.kind, record.error.stage) == ("quality", "render")
    assert record.error.message == f"{metric} is {value}, expected at most 0"
    assert f"gate:{metric}" in record.flags
    row = results_row(record, reused=False)
    assert (row["status"], row["error_kind"], row[metric]) == ("failed", "quality", value)
    assert measure_video(Path(row["video"]), SETTINGS.limits).frames == FRAMES


class Blind(Walker):
    def inspect(self, frames: np.ndarray) -> Arrays:
        raise RuntimeError("out of memory, say")


def test_what_can_not_be_measured_costs_the_numbers_and_not_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = Blind()
    monkeypatch.setattr(render, "load", lambda model, settings, info: blind)
    record = made(tmp_path, gates={"black_frames": {"max": 0, "action": "fail"}})
    assert (record.status, record.metrics) == ("ok", {})
    assert record.flags == ["not_measured", "unjudged:black_frames"]
    assert (tmp_path / "videos" / "a.mp4").is_file()
