"""A sentence performed: what is heard, and everything the face does meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from imtalker.avatars.speech import espeak
from imtalker.avatars.speech.articulation import MOUTH_COLUMNS, articulate
from imtalker.avatars.speech.emphasis import emphases
from imtalker.avatars.speech.gestures import GESTURE_COLUMNS, LIVELINESS, gesture
from imtalker.avatars.speech.utterance import Utterance, frame_times

PERFORMANCE_COLUMNS = (*GESTURE_COLUMNS, *MOUTH_COLUMNS)


@dataclass(frozen=True)
class Performance:
    """``waveform`` float32 [N] in -1..1 at 16 kHz and ``state`` float32 [T, 14] at 25 Hz, on the CPU.

    T = ceil(N * 25 / 16000); row k holds the state in the middle of frame k, (k + 1/2) / 25 s. The columns are
    :data:`PERFORMANCE_COLUMNS`, those of an avatar's state. ``utterance`` has the phonemes and words with
    their seconds. ``unknown`` counts the letters of phonemes for which no mouth shape is known.
    """

    waveform: torch.Tensor
    state: torch.Tensor
    utterance: Utterance
    unknown: Counter[str]


def perform(
    text: str,
    voice: str,
    *,
    seed: int,
    rate: int = 170,
    pitch: int = 50,
    liveliness: float = LIVELINESS["natural"],
    silence_s: tuple[float, float] = (0.2, 0.0),
) -> Performance:
    """``text`` spoken by espeak-ng's ``voice`` and performed by ``seed``, with ``silence_s`` before and after.

    The same text, voice, rate and pitch give the same waveform and mouth under every seed; head, gaze, lids and brows
    follow the seed. espeak-ng itself ends a sentence with 0.2 to 0.4 s of silence.
    Raises what :func:`imtalker.avatars.speech.espeak.speak` raises, and ValueError where ``liveliness`` is not in 0..2.
    """
    return enact(espeak.speak(text, voice, rate, pitch).padded(*silence_s), seed=seed, liveliness=liveliness)


def enact(utterance: Utterance, *, seed: int, liveliness: float = LIVELINESS["natural"]) -> Performance:
    """The same from an utterance at hand; needs no espeak-ng."""
    waveform = utterance.waveform()
    times = frame_times(len(waveform))
    articulation = articulate(utterance.phones, times)
    gestures = gesture(times, seed=seed, emphases=emphases(utterance), liveliness=liveliness)
    state = np.concatenate([gestures, articulation.mouth], axis=1)
    return Performance(torch.from_numpy(waveform), torch.from_numpy(state), utterance, articulation.unknown)
