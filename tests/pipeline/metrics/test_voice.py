"""Silero VAD on recorded and on made-up sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline.config import InputLimits
from pipeline.media.audio import decode_mono_16k
from pipeline.metrics.speech import SAMPLE_RATE, Speech
from pipeline.metrics.voice import speech_pieces

DEMO = Path(__file__).parents[3] / "manifests" / "demo"


def test_speech_is_heard_between_silence_and_music() -> None:
    threads = torch.get_num_threads()
    said = decode_mono_16k(DEMO / "english.wav", InputLimits())
    second = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    music = 0.2 * sum(np.sin(2 * np.pi * hertz * second) for hertz in (262, 330, 392)) / 3
    waveform = np.concatenate([music, said, np.zeros(2 * SAMPLE_RATE)]).astype(np.float32)
    pieces = speech_pieces(waveform)
    assert pieces is not None
    assert torch.get_num_threads() == threads
    frames = len(waveform) * 25 // SAMPLE_RATE
    heard, loud = (Speech.of(waveform, frames, 25, found).speaking for found in (pieces, None))
    begin, end = 75, 75 + len(said) * 25 // SAMPLE_RATE
    assert heard[begin:end].mean() > 0.6
    assert not heard[: begin - 5].any(), "music is no speech"
    assert loud[: begin - 5].mean() > 0.9, "which the level can't tell"
    assert not heard[end + 5 :].any()
    assert np.array_equal(speech_pieces(waveform), pieces), "nothing is left of what was heard before"
    assert speech_pieces(np.zeros(SAMPLE_RATE, np.float32)).shape == (0, 2)  # type: ignore[union-attr]
