"""Landmarks beside the pixels: which of them a mouth is measured by, and what becomes of a tracker that fails."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.ledger import Ledger
from pipeline.metrics import face_mesh, rendering
from pipeline.metrics.catalogue import METRICS, Values
from pipeline.metrics.face_geometry import POINTS
from pipeline.metrics.landmarks import LandmarkMeter, Trackers
from pipeline.stages import render
from pipeline.storage import Store
from tests.pipeline.metrics.faces import MadeUp, face, turned
from tests.pipeline.metrics.walker import FRAMES, SETTINGS, Walker, stage, task

EXTRA = {metric.name for metric in METRICS if metric.needs == "extra" and not metric.name.startswith("dlib_")}
LIPS = 0.05 + 0.05 * np.sin(np.arange(FRAMES) / 3)


def speaking() -> np.ndarray:
    """[120, 478, 3]: lips that open and close, one blink, and a head that turns by 20 degrees."""
    eyes = np.full(FRAMES, 0.3)
    eyes[60:64] = 0.02
    points = face(lips=LIPS.tolist(), eyes=eyes.tolist(), look=[(0.1 * (at % 2), 0) for at in range(FRAMES)])
    yaws = np.linspace(-10, 10, FRAMES)
    return np.concatenate([turned(points[at : at + 1], yaw, 0, 0) for at, yaw in enumerate(yaws)])


def measured(meter: LandmarkMeter) -> LandmarkMeter:
    for _ in range(0, FRAMES, 8):
        meter.add(np.zeros((8, 16, 16, 3), np.uint8))
    meter.close()
    return meter


def test_what_a_meter_says_of_a_face_that_is_known() -> None:
    meter = measured(LandmarkMeter(Trackers(lambda: MadeUp(speaking())), 25))
    values = meter.values()
    assert set(values) == EXTRA
    assert values["landmarks_found"] == 1
    assert values["lip_range"] == pytest.approx(np.ptp(np.percentile(LIPS, [5, 95])))
    assert values["yaw_range_deg"] == pytest.approx(18)
    assert values["pitch_range_deg"] == values["roll_range_deg"] == pytest.approx(0, abs=1e-6)
    assert values["gaze_range"] == pytest.approx(0.1)
    assert values["blinks_a_minute"] == pytest.approx(60 * 25 / FRAMES)
    assert meter.curves()["lip_aperture"] == pytest.approx(LIPS)


def test_frames_without_a_face_are_filled_in_while_they_are_few() -> None:
    points = speaking()
    points[30:54] = np.nan
    meter = measured(LandmarkMeter(Trackers(lambda: MadeUp(points)), 25))
    assert meter.values()["landmarks_found"] == pytest.approx(0.8)
    assert meter.reliable
    assert meter.lips[[29, 54]] == pytest.approx(LIPS[[29, 54]])
    assert np.ptp(np.diff(meter.lips[29:55])) == pytest.approx(0, abs=1e-12)
    assert np.isnan(meter.curves()["yaw_deg"][30:54]).all()
    points[54:56] = np.nan
    lost = measured(LandmarkMeter(Trackers(lambda: MadeUp(points)), 25))
    assert lost.values() == {"landmarks_found": pytest.approx(94 / 120)}
    assert lost.curves() == {}


def test_a_face_that_is_never_found_is_said() -> None:
    nobody = measured(LandmarkMeter(Trackers(lambda: MadeUp(np.full((FRAMES, POINTS, 3), np.nan))), 25))
    assert nobody.values() == {"landmarks_found": 0}


def test_trackers_are_opened_once_and_forget_between_videos() -> None:
    opened: list[MadeUp] = []

    def open_tracker() -> MadeUp:
        opened.append(MadeUp(speaking()))
        return opened[-1]

    trackers = Trackers(open_tracker)
    assert opened == []
    first, second = (measured(LandmarkMeter(trackers, 25)).values() for _ in range(2))
    assert first == second
    assert [tracker.forgotten for tracker in opened] == [2]
    one, other = trackers.take(), trackers.take()
    assert one is not other


@pytest.fixture
def walker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "load", lambda model, settings, info: Walker())


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, tracker: MadeUp | None, level: str = "basic") -> Values:
    trackers = None if tracker is None else Trackers(lambda: tracker)
    monkeypatch.setattr(rendering, "landmark_trackers", lambda settings: trackers)
    stage(folder, SETTINGS.model_copy(update={"metrics": level})).run(task(folder))
    record = Ledger(Store(str(folder), {})).read(["a"])["a"]
    assert record.status == "ok"
    assert "not_measured" not in record.flags
    return record.metrics


OF_THE_MOUTH = {"mouth_silence_ratio", "lip_lag_frames", "lip_correlation", "lip_confidence"}


def test_with_landmarks_the_mouth_is_the_lips_and_all_else_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walker: None
) -> None:
    before = made(tmp_path / "without", monkeypatch, None, "full")
    after = made(tmp_path / "with", monkeypatch, MadeUp(speaking()), "full")
    assert (before["mouth_from"], after["mouth_from"]) == ("pixels", "landmarks")
    assert not EXTRA & set(before)
    assert set(after) >= EXTRA
    changed = {name for name in before if before[name] != after[name]} - {"metrics_s"}
    assert {"mouth_from", "lip_correlation"} <= changed <= OF_THE_MOUTH | {"mouth_from"}
    curves = pq.read_table(tmp_path / "with" / "metrics" / "a.parquet")
    assert curves["lip_aperture"].to_numpy() == pytest.approx(LIPS, abs=1e-6)
    assert "eye_opening" in curves.column_names
    assert "lip_aperture" not in pq.read_schema(tmp_path / "without" / "metrics" / "a.parquet").names


def failing(frame: int) -> None:
    if frame >= 48:
        raise RuntimeError("the graph has failed")


@pytest.mark.parametrize("how", ["raises", "loses the face"])
def test_a_tracker_that_fails_leaves_the_pixels_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walker: None, how: str
) -> None:
    before = made(tmp_path / "without", monkeypatch, None)
    points = speaking()
    points[40:] = np.nan
    tracker = MadeUp(speaking(), failing) if how == "raises" else MadeUp(points)
    after = made(tmp_path / "with", monkeypatch, tracker)
    found = None if how == "raises" else pytest.approx(1 / 3, abs=1e-5)
    assert after == before | {"landmarks_found": found, "metrics_s": after["metrics_s"]}


@pytest.mark.parametrize(
    ("landmarks", "level", "installed", "expected"),
    [
        ("auto", "full", face_mesh.VERSION, True),
        ("auto", "full", None, False),
        ("auto", "full", "0.10.35", False),
        ("auto", "basic", face_mesh.VERSION, False),
        ("always", "basic", None, True),
        ("always", "off", face_mesh.VERSION, False),
        ("off", "full", face_mesh.VERSION, False),
    ],
)
def test_when_landmarks_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, landmarks: str, level: str, installed: str | None, expected: bool
) -> None:
    monkeypatch.setattr(face_mesh, "_installed", lambda: installed)
    settings = RunSettings.model_validate({"landmarks": landmarks, "metrics": level})
    assert face_mesh.wanted(settings) is expected
    if not expected:
        assert face_mesh.landmark_trackers(settings) is None


def test_demanding_landmarks_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RunSettings(landmarks="always")
    for found in (None, "0.10.35"):
        monkeypatch.setattr(face_mesh, "_installed", lambda found=found: found)
        with pytest.raises(CannotRun, match=rf"expected 0\.10\.14, found {found or 'none'}.*imtalker\[landmarks\]"):
            face_mesh.landmark_trackers(settings)


def test_a_package_that_does_not_import_is_the_runs_end_only_where_it_is_demanded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(face_mesh, "_installed", lambda: face_mesh.VERSION)
    # The meaning of None here is Python's: such a module can't be imported.
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(CannotRun, match="libgl1"):
        face_mesh.landmark_trackers(RunSettings(landmarks="always"))
    assert face_mesh.landmark_trackers(RunSettings(metrics="full")) is None
    assert "mouths are measured by pixels" in caplog.text


@pytest.fixture
def mediapipe() -> ModuleType:
    found: Any = pytest.importorskip("mediapipe", reason="needs the extra: pip install 'imtalker[landmarks]'")
    return found


@pytest.mark.filterwarnings("ignore:SymbolDatabase")
def test_the_real_face_mesh_sees_a_drawn_portrait_and_how_it_is_turned(mediapipe: ModuleType) -> None:
    trackers = face_mesh.landmark_trackers(RunSettings(landmarks="always"))
    assert trackers is not None
    portrait = (
        Image.open(Path(__file__).parents[3] / "manifests" / "demo" / "ana.png").convert("RGB").resize((256, 256))
    )
    tilts = np.linspace(-10, 10, 9)
    # Pillow turns counter-clockwise.
    frames = np.stack([np.array(portrait.rotate(-tilt, resample=Image.Resampling.BILINEAR)) for tilt in tilts])
    values = []
    for video in (frames, frames[::-1], frames):
        meter = LandmarkMeter(trackers, 25)
        meter.add(video)
        meter.close()
        values.append(meter.values())
        rolls = meter.curves()["roll_deg"]
        assert (np.diff(rolls) > 0).all() or (np.diff(rolls) < 0).all()
    assert values[0] == values[2]
    assert values[0]["landmarks_found"] == 1
    assert values[0]["roll_range_deg"] == pytest.approx(18, abs=2.5)
    assert values[0]["blinks_a_minute"] == 0
    tracker = trackers.take()
    assert np.isnan(tracker.track(np.zeros((2, 128, 128, 3), np.uint8))).all()
