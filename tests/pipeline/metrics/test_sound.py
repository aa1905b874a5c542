"""The sound of videos, kept and spoilt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import InputLimits, VideoSettings
from pipeline.media.audio import decode_mono_16k
from pipeline.media.encode import VideoWriter
from pipeline.media.wav import write_wav
from pipeline.metrics.sound import Preserved, SoundComparison, end_gap_s
from tests.media_files import grey_frame

RATE = 16_000


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    loud = 0.5 + 0.5 * np.sin(2 * np.pi * (0.7 + rng.uniform()) * t)
    return (0.2 * loud * sum(np.sin(2 * np.pi * h * t + rng.uniform(0, 6)) for h in (140, 420, 1300))).astype("f4")


def preserved(recording: np.ndarray, heard: np.ndarray, piece: int | None = None) -> Preserved | None:
    comparison = SoundComparison()
    size = piece or max(len(recording), 1)
    for start in range(0, len(recording), size):
        comparison.add(recording[start : start + size], heard[start : start + size])
    return comparison.result()


def test_the_same_sound_is_kept_and_its_level_told() -> None:
    sound = voice(3.4)
    found = preserved(sound, sound / 2)
    assert found is not None
    assert found.correlation == pytest.approx(1)
    assert found.level_db == pytest.approx(-6.02, abs=0.01)


@pytest.mark.parametrize("spoilt", ["other", "cut", "late", "muted"])
def test_the_worst_piece_tells_of_other_sound(spoilt: str) -> None:
    sound = voice(4)
    heard = {
        "other": voice(4, 1),
        "cut": sound[: int(2.5 * RATE)],
        "late": np.concatenate([np.zeros(1920, np.float32), sound]),
        "muted": np.where((np.arange(len(sound)) // RATE) == 1, 0, sound),
    }[spoilt]
    found = preserved(sound, heard)
    assert found is not None
    assert found.correlation < 0.8


@pytest.mark.parametrize("seconds", [0.05, 0.6, 4.0, 3.63])
@pytest.mark.parametrize("piece", [1000, 4000, 17_000])
def test_the_comparison_doesnt_depend_on_the_pieces_that_sound_comes_in(seconds: float, piece: int) -> None:
    sound = voice(seconds)
    heard = (sound + voice(seconds, 1) / 4)[: int(0.9 * len(sound))]
    found, whole = preserved(sound, heard, piece), preserved(sound, heard)
    assert found is not None and whole is not None
    assert found == whole
    assert found.correlation < 0.98


def test_silence_and_nothing_can_not_be_compared() -> None:
    assert preserved(np.zeros(RATE, np.float32), voice(1)) is None
    assert preserved(np.zeros(0, np.float32), voice(1)) is None


def test_a_video_of_this_program_keeps_its_sound_and_ends_with_it(tmp_path: Path) -> None:
    sound = voice(2.2)
    write_wav(tmp_path / "a.wav", sound, RATE)
    path = tmp_path / "a.mp4"
    with VideoWriter(
        path, width=64, height=48, settings=VideoSettings(), limits=InputLimits(), audio=tmp_path / "a.wav"
    ) as writer:
        writer.write(np.stack([grey_frame(level) for level in range(55)]))
    gap = end_gap_s(path)
    assert gap is not None
    assert abs(gap) <= 0.04
    found = preserved(sound, decode_mono_16k(path, InputLimits()))
    assert found is not None
    assert found.correlation > 0.98
    assert abs(found.level_db) < 0.5


def test_a_silent_video_has_no_gap(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", width=64, height=48, settings=VideoSettings(), limits=InputLimits()) as writer:
        writer.write(np.stack([grey_frame(90)] * 5))
    assert end_gap_s(tmp_path / "a.mp4") is None
