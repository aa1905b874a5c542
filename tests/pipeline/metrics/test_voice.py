"""Silero VAD on recorded and on made-up sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import InputLimits
from pipeline.media.audio import decode_mono_16k
from pipeline.metrics.speech import SAMPLE_RATE, BandEnergies, Speech
from pipeline.metrics.voice import VoiceDetector, installed

DEMO = Path(__file__).parents[3] / "manifests" / "demo"


def speech_pieces(waveform: np.ndarray, pieces: int = 1) -> np.ndarray:
    detector = VoiceDetector()
    for samples in np.array_split(waveform, pieces):
        detector.add(samples)
    return detector.pieces()


def test_speech_is_heard_between_silence_and_music() -> None:
    threads = torch.get_num_threads()
    said = decode_mono_16k(DEMO / "english.wav", InputLimits())
    second = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    music = 0.2 * sum(np.sin(2 * np.pi * hertz * second) for hertz in (262, 330, 392)) / 3
    waveform = np.concatenate([music, said, np.zeros(2 * SAMPLE_RATE)]).astype(np.float32)
    assert installed()
    pieces = speech_pieces(waveform)
    assert torch.get_num_threads() == threads
    frames = len(waveform) * 25 // SAMPLE_RATE
    energies = BandEnergies(frames, 25)
    energies.add(waveform)
    heard, loud = (Speech.of(energies.values(), 25, found).speaking for found in (pieces, None))
    begin, end = 75, 75 + len(said) * 25 // SAMPLE_RATE
    assert heard[begin:end].mean() > 0.6
    assert not heard[: begin - 5].any(), "music is no speech"
    assert loud[: begin - 5].mean() > 0.9, "which the level can't tell"
    assert not heard[end + 5 :].any()
    assert np.array_equal(speech_pieces(waveform), pieces), "nothing is left of what was heard before"
    for count in (37, len(waveform) // 300):
        assert np.array_equal(speech_pieces(waveform, count), pieces), "whatever pieces it comes in"
    assert speech_pieces(np.zeros(SAMPLE_RATE, np.float32)).shape == (0, 2)


def test_recordings_are_heard_side_by_side() -> None:
    said = decode_mono_16k(DEMO / "english.wav", InputLimits())
    sounds = said, np.concatenate([np.zeros(SAMPLE_RATE, np.float32), said])[: len(said)]
    detectors = VoiceDetector(), VoiceDetector()
    for start in range(0, len(said), SAMPLE_RATE):
        for detector, sound in zip(detectors, sounds, strict=True):
            detector.add(sound[start : start + SAMPLE_RATE])
    for detector, sound in zip(detectors, sounds, strict=True):
        assert np.array_equal(detector.pieces(), speech_pieces(sound))


def test_silero_hears_the_same_in_windows_as_at_once() -> None:
    said = decode_mono_16k(DEMO / "english.wav", InputLimits())
    silero = pytest.importorskip("silero_vad")
    whole = silero.get_speech_timestamps(torch.from_numpy(said), silero.load_silero_vad(), sampling_rate=SAMPLE_RATE)
    assert speech_pieces(said).tolist() == [[piece["start"], piece["end"]] for piece in whole]
