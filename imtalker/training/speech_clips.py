"""Speech with the mouth that says it, for training of a small audio encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imtalker.audio.encoder import FRAME_SAMPLES
from imtalker.audio.waveform import normalise
from imtalker.avatars.speech.articulation import MOUTH_COLUMNS
from imtalker.avatars.speech.performance import PERFORMANCE_COLUMNS, Performance, perform
from imtalker.avatars.speech.texts import Line
from imtalker.avatars.speech.utterance import frame_times
from imtalker.avatars.speech.visemes import LETTERS, letter_of

_MOUTH = [PERFORMANCE_COLUMNS.index(name) for name in MOUTH_COLUMNS]


@dataclass(frozen=True)
class SpeechClip:
    """A sentence: ``waveform`` float32 [N] at 16 kHz, and for each of T = ceil(N / 640) frames the ``mouth`` float32
    [T, 4] (columns `MOUTH_COLUMNS`) and the ``sound`` int64 [T], the letter of `LETTERS` that is spoken, or
    ``len(LETTERS)`` in a pause."""

    waveform: Tensor
    mouth: Tensor
    sound: Tensor


@dataclass(frozen=True)
class SpeechBatch:
    """Parts of clips, all of T frames: ``waveform`` [B, 640 T], normalised, and what `SpeechClip` says of them."""

    waveform: Tensor
    mouth: Tensor
    sound: Tensor


def speech_clip(performance: Performance) -> SpeechClip:
    """What of a performance can be heard."""
    phones = performance.utterance.phones
    times = frame_times(len(performance.waveform))
    ends = np.array([phone.end_s for phone in phones])
    letters = [letter_of(phone.symbol) for phone in phones]
    at = np.searchsorted(ends, times).clip(max=len(phones) - 1)
    sound = torch.tensor([len(LETTERS) if (letter := letters[i]) is None else LETTERS.index(letter) for i in at])
    return SpeechClip(performance.waveform, performance.state[:, _MOUTH], sound)


def speak_clips(lines: Iterable[Line], seed: int = 0) -> list[SpeechClip]:
    """Speak lines. Raises what `imtalker.avatars.speech.espeak.speak` raises."""
    return [speech_clip(perform(line.text, line.voice, seed=seed, rate=line.rate, pitch=line.pitch)) for line in lines]


class SpeechClips:
    """Random parts of clips, with noise of random strength."""

    def __init__(self, clips: Sequence[SpeechClip], *, shortest: int = 40, longest: int = 150) -> None:
        """Parts last ``shortest`` to ``longest`` frames, all in a batch as long. Raises ValueError without a clip."""
        if not clips:
            raise ValueError("expected at least one clip of speech, found none")
        self._clips = clips
        self._lengths = shortest, longest

    def batch(self, rows: int, draw: torch.Generator, noise: float = 0.05) -> SpeechBatch:
        """``noise`` is the greatest part of white noise, relative to the speech."""
        shortest, longest = self._lengths
        frames = int(torch.randint(shortest, longest + 1, (), generator=draw))
        parts = [self._part(frames, draw) for _ in range(rows)]
        waveform, mouth, sound = (torch.stack(column) for column in zip(*parts, strict=True))
        strength = noise * torch.rand(rows, 1, generator=draw)
        waveform = normalise(waveform) + strength * torch.randn(waveform.shape, generator=draw)
        return SpeechBatch(normalise(waveform), mouth, sound)

    def _part(self, frames: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Clips follow each other until ``frames`` are full."""
        waveforms: list[Tensor] = []
        mouths: list[Tensor] = []
        sounds: list[Tensor] = []
        missing = frames
        while missing > 0:
            clip = self._clips[int(torch.randint(len(self._clips), (), generator=draw))]
            whole = len(clip.waveform) // FRAME_SAMPLES
            first = int(torch.randint(max(1, whole - missing + 1), (), generator=draw)) if not waveforms else 0
            last = min(whole, first + missing)
            waveforms.append(clip.waveform[first * FRAME_SAMPLES : last * FRAME_SAMPLES])
            mouths.append(clip.mouth[first:last])
            sounds.append(clip.sound[first:last])
            missing -= last - first
        return torch.cat(waveforms), torch.cat(mouths), torch.cat(sounds)
