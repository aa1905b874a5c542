"""What a recording says frame by frame: how loud it is, where someone speaks, how open the mouth should be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from pipeline.metrics.mel import mel, triangles

SAMPLE_RATE = 16_000
_WINDOW = 1024
_BANDS = 8
_LOWEST_HZ, _HIGHEST_HZ = 100.0, 7000.0
_FLOOR = 1e-4
"""Of the loudest frame: what is quieter counts as nothing."""
_LEAST_CONTRAST_DB = 15.0
_AUDIBLE_DB = -60.0
_SETTLED_FRAMES = 8
"""So far from any speech the mouth may have closed: 0.3 s."""

_OPENING = np.array(
    [
        [-0.025, 0.059, 0.010, 0.000, 0.032, 0.012, -0.031, 0.013],
        [-0.019, 0.045, 0.019, 0.032, 0.024, 0.009, -0.021, 0.026],
        [-0.021, 0.052, -0.014, 0.005, -0.011, 0.016, -0.015, 0.037],
    ]
)
"""Weights of the logarithms of the bands, in the frame before, the frame and the one after: ridge regression (penalty
10) of the avatars' ``mouth_open`` (`imtalker.avatars.speech`) on 180 sentences that espeak-ng spoke in six languages,
17,406 frames. On 60 other sentences in other voices it correlates with the truth by 0.81 (mean; least 0.66), where
loudness alone does by 0.72. How well it does on recorded speech is not known; it is a linear rule on loudness and
brightness of the sound, so that little of it can be peculiar to espeak-ng."""


@dataclass(frozen=True)
class Speech:
    """Of a recording, for each of T frames.

    Attributes:
        level_db: float [T], of full scale.
        speaking: bool [T], frames with speech. By ``energy``: all of them where the recording has no silence.
        silent: bool [T], frames at least 0.3 s away from any speech.
        opening: float [T], how far open a mouth should be, on no particular scale.
        found_by: how speech was told from silence.
    """

    level_db: np.ndarray
    speaking: np.ndarray
    silent: np.ndarray
    opening: np.ndarray
    found_by: Literal["energy", "silero"]

    @classmethod
    def of(cls, energy: np.ndarray, fps: int, pieces: np.ndarray | None = None) -> Speech:
        """Of a recording's `BandEnergies` [T, 8].

        ``pieces`` int [n, 2] are the samples with speech (`pipeline.metrics.voice`); None goes by the level.
        """
        frames = len(energy)
        level = 10 * np.log10(energy.sum(1) + 1e-12)
        speaking = _speaking(level) if pieces is None else _covered(_middles(frames, fps), pieces)
        settled = ~_spread(speaking, _SETTLED_FRAMES)
        return cls(level, speaking, settled, expected_opening(energy), "energy" if pieces is None else "silero")


class BandEnergies:
    """Energy around the middle of each frame in 8 bands (mel scale, 100 to 7000 Hz), of a recording in pieces.

    Scaled so that the bands of a full-scale sine sum up to about 1.
    """

    def __init__(self, frames: int, fps: int) -> None:
        # A window begins half its length before the middle of its frame.
        self._starts = _middles(frames, fps)
        self._held = np.zeros(_WINDOW // 2)
        self._first = 0
        """Where in the recording, led in by half a window of silence, ``_held`` begins."""
        self._found: list[np.ndarray] = []
        self._done = 0

    def add(self, samples: np.ndarray) -> None:
        """The next samples, float [n] at 16 kHz."""
        self._held = np.concatenate([self._held, samples.astype(np.float64)])
        last = self._first + len(self._held) - _WINDOW
        self._take(int(np.searchsorted(self._starts, last, "right")))

    def values(self) -> np.ndarray:
        """float [T, 8], once all is there: what is missing at the recording's end is silence."""
        if self._done < len(self._starts):
            # For frames whose windows begin in what is there; those beyond hear nothing.
            self._held = np.pad(self._held, (0, _WINDOW))
            self._take(int(np.searchsorted(self._starts, self._first + len(self._held) - _WINDOW, "right")))
        beyond = np.zeros((len(self._starts) - self._done, _BANDS))
        return np.concatenate([*self._found, beyond])

    def _take(self, end: int) -> None:
        """Frames up to ``end``, whose windows lie in what is held; what no later one needs is let go."""
        starts = self._starts[self._done : end] - self._first
        if len(starts):
            hann = np.hanning(_WINDOW)
            cut = self._held[starts[:, None] + np.arange(_WINDOW)] * hann
            power = np.square(np.abs(np.fft.rfft(cut))) * (4 / np.square(hann.sum()))
            self._found.append(power @ _filters().T)
            self._done = end
        needed = int(self._starts[self._done]) if self._done < len(self._starts) else self._first + len(self._held)
        drop = min(max(needed - self._first, 0), len(self._held))
        self._held, self._first = self._held[drop:].copy(), self._first + drop


def expected_opening(energy: np.ndarray) -> np.ndarray:
    """float [T]: a linear read-out of `BandEnergies` of a frame and its two neighbours."""
    if not len(energy) or not energy.any():
        return np.zeros(len(energy))
    said = np.log10(energy / energy.sum(1).max() + _FLOOR) @ _OPENING.T
    said = np.pad(said, ((1, 1), (0, 0)), mode="edge")
    opening: np.ndarray = said[:-2, 0] + said[1:-1, 1] + said[2:, 2]
    return opening


def _speaking(level_db: np.ndarray) -> np.ndarray:
    """Frames above a third of the way from the quiet to the loud ones."""
    if not len(level_db):
        return np.zeros(0, dtype=bool)
    quiet, loud = np.percentile(level_db, [5, 95])
    quiet = max(quiet, loud - 60)
    if loud < _AUDIBLE_DB:
        return np.zeros(len(level_db), dtype=bool)
    if loud - quiet < _LEAST_CONTRAST_DB:
        return np.ones(len(level_db), dtype=bool)
    speaking: np.ndarray = level_db > max(quiet + (loud - quiet) / 3, _AUDIBLE_DB)
    return speaking


def _middles(frames: int, fps: int) -> np.ndarray:
    """The sample in the middle of each frame, int [T]."""
    return ((np.arange(frames) + 0.5) * SAMPLE_RATE / fps).astype(int)


def _covered(samples: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Whether each of the samples [T] lies in one of the pieces [n, 2], which are in order and apart: bool [T]."""
    covered: np.ndarray = np.searchsorted(pieces[:, 0], samples, "right") > np.searchsorted(
        pieces[:, 1], samples, "right"
    )
    return covered


def _spread(marked: np.ndarray, frames: int) -> np.ndarray:
    """Marks everything within so many frames of what is marked."""
    kernel = np.ones(2 * frames + 1)
    near: np.ndarray = np.convolve(marked.astype(float), kernel, mode="same")[: len(marked)] > 0.5
    return near if len(marked) >= len(kernel) else np.full(len(marked), bool(marked.any()))


@cache
def _filters() -> np.ndarray:
    """[bands, bins]: triangles evenly spread on the mel scale."""
    edges = np.linspace(mel(_LOWEST_HZ), mel(_HIGHEST_HZ), _BANDS + 2)
    return triangles(edges, mel(np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)))
