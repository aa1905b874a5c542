"""What metrics take of an item's sound, in one pass over it: memory doesn't grow with its length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from pipeline.metrics import voice
from pipeline.metrics.lse import FPS, MOST_FRAMES
from pipeline.metrics.sound import Preserved, SoundComparison
from pipeline.metrics.speech import SAMPLE_RATE, BandEnergies, Speech

BEGINNING_S = MOST_FRAMES // FPS + 1
"""So much of the recording is kept for SyncNet, which judges no more."""

Pieces = Iterable[np.ndarray]
"""A waveform at 16 kHz, float [n] each; of two that are compared, all pieces but the last are as long."""


@dataclass(frozen=True)
class Heard:
    """Of an item's recording and its video's sound.

    Attributes:
        kept: None for a silent recording.
        beginning: float [N] at 16 kHz, the recording's first `BEGINNING_S` or a little more; empty if nobody asked.
    """

    speech: Speech
    kept: Preserved | None
    beginning: np.ndarray


def listen(recording: Pieces, heard: Pieces, frames: int, fps: int, *, with_beginning: bool) -> Heard:
    """Hear the recording that an item of so many frames was given, and its video's sound."""
    energies, comparison = BandEnergies(frames, fps), SoundComparison()
    detector = voice.VoiceDetector() if voice.installed() else None
    nothing = np.zeros(0, np.float32)
    beginning = [nothing]
    for given, made in zip_longest(recording, heard, fillvalue=nothing):
        energies.add(given)
        comparison.add(given, made)
        if detector is not None:
            detector.add(given)
        if with_beginning and sum(map(len, beginning)) < BEGINNING_S * SAMPLE_RATE:
            beginning.append(given)
    spoken = None if detector is None else detector.pieces()
    return Heard(Speech.of(energies.values(), fps, spoken), comparison.result(), np.concatenate(beginning))
