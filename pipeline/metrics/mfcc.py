"""Mel-frequency cepstral coefficients as SyncNet hears them: those of python_speech_features with its defaults.

Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition" (1980), with HTK's
lifter and the frame's log energy in the place of the first coefficient.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pipeline.metrics.mel import hertz_of, mel, triangles

SAMPLE_RATE = 16_000
STEPS_PER_S = 100
COEFFICIENTS = 13

_WINDOW, _HOP, _FFT = 400, 160, 512
_FILTERS, _LIFTER, _EMPHASIS = 26, 22, 0.97
_LEAST = float(np.finfo(np.float64).eps)


def mfcc(waveform: np.ndarray) -> np.ndarray:
    """float [N] at 16 kHz, full scale 1 -> float [13, T] with a column every 10 ms.

    Windows of 25 ms without taper; the last one is filled up with zeros. Levels are those of 16-bit integers.
    """
    samples = np.clip(np.round(waveform.astype(np.float64) * 32768), -32768, 32767)
    emphasised = np.append(samples[:1], samples[1:] - _EMPHASIS * samples[:-1])
    count = 1 + max(0, -(-(len(samples) - _WINDOW) // _HOP))
    padded = np.pad(emphasised, (0, (count - 1) * _HOP + _WINDOW - len(emphasised)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.square(np.abs(np.fft.rfft(frames, _FFT))) / _FFT
    energy = np.maximum(power.sum(1), _LEAST)
    bands = np.log(np.maximum(power @ _filters().T, _LEAST))
    cepstra = bands @ _cosines().T
    cepstra[:, 0] = np.log(energy)
    found: np.ndarray = cepstra.T
    return found


@cache
def _filters() -> np.ndarray:
    """[26, 257]: triangles between bins that are evenly spread on the mel scale."""
    hertz = hertz_of(np.linspace(0, mel(SAMPLE_RATE / 2), _FILTERS + 2))
    return triangles(np.floor((_FFT + 1) * hertz / SAMPLE_RATE), np.arange(_FFT // 2 + 1))


@cache
def _cosines() -> np.ndarray:
    """[13, 26]: the orthonormal cosine transform, each coefficient raised by the lifter."""
    number = np.arange(COEFFICIENTS)
    turns = np.cos(np.pi * number[:, None] * (np.arange(_FILTERS) + 0.5) / _FILTERS)
    turns *= np.sqrt(2 / _FILTERS)
    turns[0] *= np.sqrt(0.5)
    found: np.ndarray = turns * (1 + _LIFTER / 2 * np.sin(np.pi * number / _LIFTER))[:, None]
    return found
