"""Lags and silences that are known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics.speech import SAMPLE_RATE, BandEnergies, Speech
from pipeline.metrics.sync import silence_ratio, synchrony


def curve(seed: int, frames: int = 200) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=frames + 4)
    return np.convolve(noise, np.ones(5) / 5, mode="valid")


@pytest.mark.parametrize("lag", [-9, -3, 0, 1, 3, 12])
def test_a_shifted_curve_is_found_where_it_is(lag: int) -> None:
    sound = curve(1)
    found = synchrony(np.roll(sound, lag), sound)
    assert found is not None
    assert found.lag == lag
    assert found.correlation > 0.99
    assert found.confidence > 0.7


def test_another_curve_has_little_confidence_and_a_still_or_short_one_has_no_lag() -> None:
    found = synchrony(curve(1), curve(2))
    assert found is not None
    assert found.correlation < 0.5
    assert synchrony(np.ones(200), curve(2)) is None
    assert synchrony(curve(1, 54), curve(1, 54)) is None


def test_a_short_clip_is_compared_as_far_as_it_goes() -> None:
    sound = curve(1, 57)
    near, far = (synchrony(np.roll(sound, lag), sound) for lag in (-6, 12))
    assert near is not None and far is not None
    assert near.lag == -6
    assert abs(far.lag) <= 7 and far.correlation < 0.6


def band_energies(waveform: np.ndarray, frames: int, pieces: int = 1) -> np.ndarray:
    energies = BandEnergies(frames, 25)
    for samples in np.array_split(waveform, pieces):
        energies.add(samples)
    return energies.values()


def bursts(seconds: float, period_s: float) -> np.ndarray:
    """A voice-like tone that is on in the first half of every period."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tone = sum(np.sin(2 * np.pi * hertz * t) for hertz in (150, 450, 900, 1800)) / 8
    return np.where(t % period_s < period_s / 2, tone, 0).astype(np.float32)


def test_speech_and_silence_are_told_apart() -> None:
    speech = Speech.of(band_energies(bursts(8, 4), 200), 25)
    expected = np.arange(200) % 100 < 50
    assert (speech.speaking == expected).mean() > 0.97
    assert speech.silent[65:85].all()
    assert not speech.silent[:50].any()
    assert speech.opening[20:30].mean() > speech.opening[70:80].mean() + 0.1
    level = 10 * np.log10(np.square(bursts(1, 4)).mean())
    assert speech.level_db[20] == pytest.approx(level, abs=4)


def test_energy_lies_in_the_band_of_the_tone_and_on_its_frame() -> None:
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    energy = band_energies(np.sin(2 * np.pi * 1000 * t) * (t >= 1), 60)
    assert energy.shape == (60, 8)
    assert energy[:24].max() < 1e-3, "before the tone"
    assert energy[30].sum() == pytest.approx(energy[40].sum(), rel=0.01)
    assert energy[30, 2:5].sum() > 0.95 * energy[30].sum()
    assert energy[51:].max() < 1e-3, "beyond the recording's end"


@pytest.mark.parametrize("pieces", [3, 70, 6000])
@pytest.mark.parametrize("frames", [0, 40, 50, 80])
def test_energies_dont_depend_on_the_pieces_that_a_recording_comes_in(pieces: int, frames: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE + 7)
    whole = band_energies(noise, frames)
    assert whole.shape == (frames, 8)
    np.testing.assert_allclose(band_energies(noise, frames, pieces), whole, rtol=1e-12)


def test_a_recording_without_silence_or_without_sound() -> None:
    rng = np.random.default_rng(0)
    noise = Speech.of(band_energies(rng.normal(0, 0.1, 4 * SAMPLE_RATE), 100), 25)
    assert noise.speaking.all()
    assert not noise.silent.any()
    nothing = Speech.of(band_energies(np.zeros(4 * SAMPLE_RATE), 100), 25)
    assert not nothing.speaking.any()
    assert np.ptp(nothing.opening) == 0


def test_motion_in_silence_by_that_in_speech() -> None:
    speaking = np.arange(100) < 50
    mouth = np.where(speaking, np.arange(100) % 2 * 4.0, np.arange(100) % 2 * 1.0)
    assert silence_ratio(mouth, speaking, ~speaking) == pytest.approx(0.25)
    assert silence_ratio(mouth, speaking, np.zeros(100, bool)) is None
    assert silence_ratio(np.ones(100), speaking, ~speaking) is None


def test_speech_is_where_a_detector_has_heard_it() -> None:
    pieces = np.array([[0, SAMPLE_RATE], [3 * SAMPLE_RATE, 4 * SAMPLE_RATE]])
    speech = Speech.of(band_energies(bursts(8, 4), 200), 25, pieces)
    assert speech.found_by == "silero"
    assert np.flatnonzero(speech.speaking).tolist() == [*range(25), *range(75, 100)]
    assert np.flatnonzero(speech.silent).tolist() == [*range(33, 67), *range(108, 200)]
    unheard = Speech.of(band_energies(bursts(8, 4), 200), 25, pieces[:0])
    assert not unheard.speaking.any()
    assert unheard.silent.all()
