from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from imtalker.avatars.speech.emphasis import Emphasis, emphases
from imtalker.avatars.speech.gestures import BLINKS_APART_S, GESTURE_COLUMNS, LIVELINESS, gesture
from imtalker.avatars.speech.utterance import FPS, frame_times
from tests.imtalker.avatars import recorded_speech

_MINUTES = frame_times(16_000 * 600)
_FINE = np.arange(0.0, 300.0, 0.005)


def _column(track: np.ndarray, name: str) -> np.ndarray:
    return track[:, GESTURE_COLUMNS.index(name)]


def _runs(active: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def test_the_first_frames_are_pinned() -> None:
    """Equal on every machine, up to the rounding of its elementary functions."""
    track = gesture(frame_times(16_000), seed=7, emphases=[Emphasis(0.4, 1.0)])
    assert track.shape == (25, 10)
    assert track.dtype == np.float32
    assert track[0] == pytest.approx(
        [-0.03340105, 0.06526914, -0.09213545, 0.001744487, 0.001409966, 1.009536, 0, 0, 0, 0.120094], abs=1e-6
    )
    assert track[12] == pytest.approx(
        [-0.1122719, 0.0911815, -0.006216866, -0.008382709, 9.478585e-05, 1.009766, 0, 0, 0, -0.05369393], abs=1e-6
    )


def test_a_seed_gives_one_motion_and_seeds_differ() -> None:
    times = frame_times(16_000 * 4)
    assert np.array_equal(gesture(times, seed=1), gesture(times, seed=1))
    first, second = gesture(times, seed=1), gesture(times, seed=2)
    assert np.abs(first - second)[:, :3].max() > 0.03


def test_a_longer_clip_begins_alike() -> None:
    assert np.array_equal(gesture(frame_times(64_000), seed=3)[:50], gesture(frame_times(32_000), seed=3))


def test_ranges_and_calm_centres() -> None:
    track = gesture(_MINUTES, seed=1, liveliness=LIVELINESS["lively"])
    low = [-0.5, -0.3, -0.25, -0.06, -0.05, 0.92, -1, -1, 0, -1]
    high = [0.5, 0.3, 0.25, 0.06, 0.05, 1.08, 1, 1, 1, 1]
    assert (track >= low).all()
    assert (track <= high).all()
    assert np.abs(track.mean(axis=0) - [0, 0, 0, 0, 0, 1, 0, 0, 0.05, 0]).max() < 0.06


def test_liveliness_scales_head_and_brows_but_not_the_eyes() -> None:
    calm, lively = (gesture(_MINUTES, seed=1, liveliness=LIVELINESS[manner]) for manner in ("calm", "lively"))
    for name in ("yaw", "pitch", "roll", "x", "y", "scale", "brows"):
        assert _column(lively, name).std() > 2 * _column(calm, name).std()
    for name in ("gaze_x", "gaze_y", "blink"):
        assert np.array_equal(_column(lively, name), _column(calm, name))
    still = gesture(_MINUTES, seed=1, liveliness=0.0)
    assert np.ptp(still[:, :6], axis=0).max() == 0


def test_the_head_moves_smoothly() -> None:
    steps = np.abs(np.diff(gesture(_MINUTES, seed=5), axis=0))
    assert _column(steps, "yaw").max() < 0.06
    assert _column(steps, "pitch").max() < 0.04
    assert _column(steps, "roll").max() < 0.03


def test_blinks_last_a_quarter_second_shut_the_eyes_and_keep_apart() -> None:
    blink = _column(gesture(_FINE, seed=4), "blink")
    runs = _runs(blink > 1e-4)
    assert 0.1 < len(runs) / _FINE[-1] < 0.6
    for first, last in runs[:-1]:
        assert 0.17 <= (last - first) * 0.005 <= 0.3
        assert blink[first:last].max() == 1
    apart = [(after[0] - before[1]) * 0.005 for before, after in pairwise(runs)]
    assert min(apart) >= BLINKS_APART_S


def test_a_blink_shows_in_a_frame() -> None:
    blink = _column(gesture(_MINUTES, seed=4), "blink")
    assert all(blink[first:last].max() > 0.9 for first, last in _runs(blink > 0.2)[1:-1])


def test_eyes_jump_and_then_fixate_mostly_the_viewer() -> None:
    gaze = gesture(_FINE, seed=6)[:, 6:8]
    moving = np.abs(np.diff(gaze, axis=0)).max(axis=1) > 1e-6
    jumps = _runs(moving)
    assert max(last - first for first, last in jumps) * 0.005 <= 0.065
    fixations = [(after[0] - before[1]) * 0.005 for before, after in pairwise(jumps)]
    assert 0.4 <= min(fixations) <= max(fixations) <= 2.5
    assert (np.abs(gaze) < 0.15).all(axis=1).mean() > 0.5
    assert np.abs(gaze).max() > 0.5


def test_the_head_follows_the_gaze_in_part() -> None:
    track = gesture(_MINUTES, seed=8)
    gaze, yaw = _column(track, "gaze_x"), _column(track, "yaw")
    assert np.corrcoef(gaze[:-FPS], yaw[FPS:])[0, 1] > 0.1


def test_emphasis_nods_and_raises_brows_and_nothing_else() -> None:
    times = frame_times(16_000 * 60)
    marks = [Emphasis(float(at), 1.0) for at in range(1, 59)]
    changed = gesture(times, seed=2, emphases=marks) - gesture(times, seed=2)
    for name in set(GESTURE_COLUMNS) - {"pitch", "brows"}:
        assert np.abs(_column(changed, name)).max() == 0
    pitch, brows = _column(changed, "pitch"), _column(changed, "brows")
    nods = [pitch[at * FPS - 8 : at * FPS + 9].max() > 0.02 for at in range(1, 59)]
    raised = [brows[at * FPS - 8 : at * FPS + 9].max() > 0.15 for at in range(1, 59)]
    assert 0.5 < np.mean(nods) < 0.9
    assert 0.4 < np.mean(raised) < 0.8
    assert min(pitch.min(), brows.min()) > -1e-6


@pytest.mark.parametrize("liveliness", [-0.1, 2.1, float("nan")])
def test_liveliness_out_of_range_is_refused(liveliness: float) -> None:
    with pytest.raises(ValueError, match=r"liveliness must lie in 0\.\.2"):
        gesture(frame_times(640), seed=1, liveliness=liveliness)


def test_no_frames_at_all() -> None:
    assert gesture(frame_times(0), seed=1).shape == (0, 10)


@pytest.mark.parametrize("name", recorded_speech.NAMES)
def test_emphases_are_words_of_the_utterance_and_keep_apart(name: str) -> None:
    spoken = recorded_speech.utterance(name)
    found = emphases(spoken)
    assert 1 <= len(found) <= len(spoken.words)
    assert max(mark.strength for mark in found) == 1
    times = [mark.time_s for mark in found]
    assert times == sorted(times)
    assert min(np.diff(times), default=1.0) >= 0.5
    assert 0 <= times[0] <= times[-1] < spoken.seconds
