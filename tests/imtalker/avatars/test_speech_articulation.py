from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from imtalker.avatars.speech.articulation import PAUSE_AT_REST_S, articulate, closures
from imtalker.avatars.speech.utterance import Phone, Utterance, frame_times
from imtalker.avatars.speech.visemes import Closure, visemes
from tests.imtalker.avatars import recorded_speech
from tests.imtalker.avatars.recorded_speech import LEVEL_S, NAMES

OPEN, WIDTH, ROUND, JAW = range(4)


def _phones(*parts: tuple[str, float]) -> list[Phone]:
    """Phones that follow each other, from (symbol, seconds)."""
    ends = np.cumsum([seconds for _, seconds in parts]).tolist()
    return [Phone(symbol, end - seconds, end) for (symbol, seconds), end in zip(parts, ends, strict=True)]


def _frames(spoken: Utterance) -> np.ndarray:
    return frame_times(len(spoken.waveform()))


@pytest.fixture(params=NAMES)
def spoken(request: pytest.FixtureRequest) -> Utterance:
    return recorded_speech.utterance(request.param)


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (1, 1), (639, 1), (640, 1), (641, 2), (16_000, 25), (16_001, 26), (57_600_001, 90_001)],
)
def test_frames_cover_the_samples_and_are_timed_at_their_middles(samples: int, frames: int) -> None:
    times = frame_times(samples)
    assert len(times) == frames
    assert times.tolist() == [(frame + 0.5) / 25 for frame in range(frames)]


def test_a_held_vowel_reaches_its_target() -> None:
    mouth = articulate(_phones(("u", 1.0)), np.array([0.5])).mouth[0]
    (target,) = visemes("u")
    assert mouth == pytest.approx([target.opening, target.width, target.rounding, target.jaw], abs=1e-6)


def test_between_equal_sounds_the_mouth_is_half_way() -> None:
    """Two sounds of equal weight and fall-off balance where their distances do, width falling off 0.06 to 0.045."""
    phones = _phones(("i", 0.4), ("e", 0.4))
    first, second = visemes("i")[0], visemes("e")[0]
    # Cores end 0.28 s and begin 0.52 s: opening falls off equally on both sides.
    middle = articulate(phones, np.array([0.4])).mouth[0, OPEN]
    assert middle == pytest.approx((first.opening + second.opening) / 2, abs=1e-6)
    balanced = 0.28 + 0.24 * 0.045 / (0.045 + 0.06)
    width = articulate(phones, np.array([balanced])).mouth[0, WIDTH]
    assert width == pytest.approx((first.width + second.width) / 2, abs=1e-6)


@pytest.mark.parametrize("seconds", [0.15, 0.08, 0.05])
def test_the_mouth_opens_between_closures(seconds: float) -> None:
    phones = _phones(("m", 0.08), ("a", seconds), ("m", 0.08), ("a", seconds), ("b", 0.08))
    fine = np.arange(0.0, phones[-1].end_s, 0.002)
    opening = articulate(phones, fine).mouth[:, OPEN]
    for vowel in (phones[1], phones[3]):
        assert opening[(fine >= vowel.start_s) & (fine < vowel.end_s)].max() > 0.35


def test_rounding_is_anticipated() -> None:
    phones = _phones(("s", 0.1), ("t", 0.08), ("u", 0.2), ("t", 0.08), ("s", 0.1))
    before, after = articulate(phones, np.array([0.14, 0.42])).mouth[:, ROUND]
    assert before > 0.3
    assert before > after


@pytest.mark.parametrize("seconds", [0.2, 0.05, 0.02, 0.01])
@pytest.mark.parametrize("consonant", ["p", "b", "m"])
def test_lips_touch_in_a_frame_at_least_however_fast_the_speech(consonant: str, seconds: float) -> None:
    for lead in np.arange(0.3, 0.34, 0.005):
        phones = _phones(("a", float(lead)), (consonant, seconds), ("a", 0.3))
        times = frame_times(round(phones[-1].end_s * 16_000))
        opening = articulate(phones, times).mouth[:, OPEN]
        assert opening.min() < 1e-6
        near = abs(times[opening.argmin()] - phones[1].start_s)
        assert near < seconds + 0.05


def test_lips_touch_in_every_closure_of_real_speech(spoken: Utterance) -> None:
    times = _frames(spoken)
    opening = articulate(spoken.phones, times).mouth[:, OPEN]
    found = closures(spoken.phones)
    assert len(found) == sum(
        sound.closure is Closure.LIPS for phone in spoken.phones for sound in visemes(phone.symbol)
    )
    for first, last in found:
        inside = opening[(times >= first) & (times < last)]
        assert len(inside) >= 1
        assert inside.max() < 1e-6


def test_closures_fall_where_the_sound_is_weak(spoken: Utterance) -> None:
    level = recorded_speech.levels(spoken.samples)
    at = (np.arange(len(level)) + 0.5) * LEVEL_S
    loud = np.median(level[level > 0.1 * level.max()])
    for first, last in closures(spoken.phones):
        inside = level[(at >= first) & (at < last)]
        around = level[(at >= first - 0.15) & (at < last + 0.15)]
        assert np.median(inside) < 0.75 * around.max(), (first, last, loud)


def test_the_mouth_opens_when_the_sound_swells(spoken: Utterance) -> None:
    """The correlation of opening and level peaks within a frame of no lag, and is far lower at other lags."""
    step = LEVEL_S
    level = recorded_speech.levels(spoken.samples)
    level = np.convolve(level, np.full(4, 0.25), mode="same")
    opening = articulate(spoken.phones, (np.arange(len(level)) + 0.5) * step).mouth[:, OPEN]
    lags = range(-15, 16)
    scores = [np.corrcoef(level[15 + lag : len(level) - 15 + lag], opening[15:-15])[0, 1] for lag in lags]
    assert abs(lags[int(np.argmax(scores))]) * step <= 0.04
    assert max(scores) > 0.15 + max(score for lag, score in zip(lags, scores, strict=True) if abs(lag) >= 12)


def test_the_sound_begins_with_the_first_phoneme(spoken: Utterance) -> None:
    level = recorded_speech.levels(spoken.samples)
    onset = np.argmax(level > 0.02 * level.max()) * LEVEL_S
    first = next(phone for phone in spoken.phones if phone.symbol)
    assert abs(onset - first.start_s) <= 0.04


def test_the_mouth_rests_in_long_pauses_and_at_the_end(spoken: Utterance) -> None:
    padded = spoken.padded(0.5, 0.5)
    times = _frames(padded)
    mouth = np.abs(articulate(padded.phones, times).mouth)
    pauses = [phone for phone in padded.phones if not phone.symbol and phone.end_s - phone.start_s > PAUSE_AT_REST_S]
    assert len(pauses) >= 2
    for pause in pauses:
        resting = mouth[(times >= pause.start_s + 0.1) & (times <= pause.end_s - 0.08)]
        assert resting.max(initial=0.0) < 1e-6
    assert mouth[0].max() == mouth[-1].max() == 0


def test_movement_is_smooth(spoken: Utterance) -> None:
    """Lips part in 60 ms, in 30 between closures that follow each other fast; width and rounding are slower."""
    steps = np.abs(np.diff(articulate(spoken.phones, _frames(spoken)).mouth, axis=0)).max(axis=0)
    assert (steps < [0.7, 0.5, 0.5, 0.5]).all(), steps
    fine = np.abs(np.diff(articulate(spoken.phones, np.arange(0.0, spoken.seconds, 0.001)).mouth, axis=0)).max(axis=0)
    # A half cosine over 30 ms rises by pi/2/30 of its height in a millisecond at most.
    assert (fine < [0.05, 0.02, 0.02, 0.05]).all(), fine


def test_speech_moves_the_mouth(spoken: Utterance) -> None:
    mouth = articulate(spoken.phones, _frames(spoken)).mouth
    assert mouth.dtype == np.float32
    assert mouth[:, OPEN].max() > 0.35
    assert mouth[:, JAW].std() > 0.05
    assert mouth.min(axis=0).tolist() >= [0, -1, 0, 0]
    assert mouth.max() <= 1


def test_a_frame_does_not_depend_on_the_others(spoken: Utterance) -> None:
    times = _frames(spoken)
    whole = articulate(spoken.phones, times).mouth
    assert np.array_equal(articulate(spoken.phones, times[20:30]).mouth, whole[20:30])


def test_unknown_symbols_are_counted_and_spoken_somehow() -> None:
    result = articulate(_phones(("a", 0.1), ("??", 0.1), ("あ", 0.1)), frame_times(4800))
    assert result.unknown == Counter({"あ": 1})
    assert np.isfinite(result.mouth).all()


def test_nothing_spoken_is_a_resting_mouth() -> None:
    assert np.abs(articulate([], frame_times(16_000)).mouth).max() == 0
    assert articulate([], frame_times(0)).mouth.shape == (0, 4)
