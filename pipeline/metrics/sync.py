"""Whether the mouth goes with the sound: lag and correlation of two curves. This is not LSE (SyncNet)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.metrics.correlation import correlation

MAX_LAG = 15
"""Frames that the mouth is looked for before and after the sound: 0.6 s."""
_LEAST_FRAMES = 50
"""Under two seconds of common time any lag can look good by chance."""
_LEAST_LAG = 5
"""Without so much room on both sides a lag of some frames could not be told from none."""


@dataclass(frozen=True)
class Sync:
    """``lag`` frames by which the mouth follows the sound (negative: it leads), where they correlate best;
    ``correlation`` there, -1..1; ``confidence``: how far that is above the median over all lags.
    """

    lag: int
    correlation: float
    confidence: float


def synchrony(mouth: np.ndarray, sound: np.ndarray) -> Sync | None:
    """Compare two curves [T]. None for clips under 2.2 s, or a curve that stays.

    Pearson's correlation over the frames that both have at a lag, for every lag within `MAX_LAG` that leaves 2 s of
    them.
    """
    most = min(MAX_LAG, len(mouth) - _LEAST_FRAMES)
    if most < _LEAST_LAG or np.ptp(mouth) == 0 or np.ptp(sound) == 0:
        return None
    lags = range(-most, most + 1)
    found = np.array([correlation(*_lagged(mouth, sound, lag)) for lag in lags])
    best = int(found.argmax())
    return Sync(lags[best], float(found[best]), float(found[best] - np.median(found)))


def silence_ratio(mouth: np.ndarray, speaking: np.ndarray, silent: np.ndarray) -> float | None:
    """Mean change of ``mouth`` [T] from frame to frame in silence, as a part of that in speech.

    Frames whose predecessor is of the same kind count. None where either has fewer than 5 of them.
    """
    change = np.abs(np.diff(mouth))
    still, moving = (change[marked[1:] & marked[:-1]] for marked in (silent, speaking))
    if len(still) < 5 or len(moving) < 5 or moving.mean() < 1e-9:
        return None
    return float(still.mean() / moving.mean())


def _lagged(late: np.ndarray, early: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    return (late[lag:], early[: len(early) - lag]) if lag >= 0 else (late[:lag], early[-lag:])
