"""Spoken text with the exact times of its phonemes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import soxr

from imtalker.audio.waveform import frames_for

SAMPLE_RATE = 16_000
FPS = 25
PAUSE = ""

# Of the loudest sample; the murmur of a voice with an echo or much breath lies below.
_SILENCE = 0.01
_FULL_SCALE = 32768.0


@dataclass(frozen=True)
class Phone:
    """A phoneme (IPA as espeak-ng writes it, ``""`` for a pause) from ``start_s`` to ``end_s`` seconds.

    ``silence_s`` is how long the recording was silent right before ``start_s``. The synthesizer starts a voiceless
    plosive at its burst, so this is how long the closure before the burst has lasted.
    """

    symbol: str
    start_s: float
    end_s: float
    silence_s: float = 0.0


@dataclass(frozen=True)
class Word:
    """A word of the text, ``text[position : position + length]``, spoken from ``start_s`` on."""

    position: int
    length: int
    start_s: float


@dataclass(frozen=True)
class Utterance:
    """``samples`` int16 [N], mono at ``rate`` Hz, and what is said when.

    ``phones`` follow each other without gaps from 0 to the end. ``sentences`` are the seconds at which sentences start.
    """

    text: str
    voice: str
    rate: int
    samples: np.ndarray
    phones: tuple[Phone, ...]
    words: tuple[Word, ...]
    sentences: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def padded(self, before_s: float, after_s: float) -> Utterance:
        """The same with silence before and after, rounded to samples."""
        before, after = round(before_s * self.rate), round(after_s * self.rate)
        shift, end = before / self.rate, (before + len(self.samples) + after) / self.rate
        spoken = [replace(phone, start_s=phone.start_s + shift, end_s=phone.end_s + shift) for phone in self.phones]
        pauses = Phone(PAUSE, 0.0, shift), Phone(PAUSE, spoken[-1].end_s if spoken else shift, end)
        return replace(
            self,
            samples=np.pad(self.samples, (before, after)),
            phones=tuple(phone for phone in (pauses[0], *spoken, pauses[1]) if phone.end_s > phone.start_s),
            words=tuple(replace(word, start_s=word.start_s + shift) for word in self.words),
            sentences=tuple(start + shift for start in self.sentences),
        )

    def waveform(self) -> np.ndarray:
        """float32 [N'] in -1..1 at 16 kHz, by libsoxr's "HQ" recipe, whose delay is compensated."""
        at_rate = self.samples.astype(np.float32) / _FULL_SCALE
        # Ringing of the resampling filter may leave the range.
        return np.clip(soxr.resample(at_rate, self.rate, SAMPLE_RATE, quality="HQ"), -1.0, 1.0)


def frame_times(samples: int) -> np.ndarray:
    """float64 [T] seconds: the middles (k + 1/2) / 25 of the frames that cover ``samples`` at 16 kHz.

    T = ceil(samples * 25 / 16000) in integers. Frame k is on screen from k/25 to (k+1)/25 s, so its middle is the
    moment it should show.
    """
    return (np.arange(frames_for(samples, SAMPLE_RATE, FPS)) + 0.5) / FPS


def silence_before(samples: np.ndarray, end: int) -> int:
    """Number of samples right before ``end`` that stay 40 dB below the loudest sample of all."""
    level = np.abs(samples.astype(np.int32))
    loud = np.flatnonzero(level[:end] > _SILENCE * level.max(initial=0))
    return end - (int(loud[-1]) + 1 if len(loud) else 0)
