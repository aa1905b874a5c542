"""What motion codes show: those that were asked for, and those that rendered frames have."""

from __future__ import annotations

import numpy as np


def steps(codes: np.ndarray) -> np.ndarray:
    """float [T, D] -> Euclidean distance of each code from the one before [T]; the first is 0."""
    moved = np.linalg.norm(np.diff(codes.astype(np.float64), axis=0), axis=1)
    return np.concatenate([np.zeros(min(len(codes), 1)), moved])


def jitter(codes: np.ndarray) -> float | None:
    """Root mean square of the second difference, in standard deviations of the codes over the clip.

    0 for a straight line, the square root of 6 for white noise. None for fewer than 3 frames or codes that stay.
    """
    values = codes.astype(np.float64)
    spread = float(np.sqrt(values.var(axis=0).mean())) if len(values) >= 3 else 0.0
    if spread < 1e-9:
        return None
    return float(np.sqrt(np.square(np.diff(values, 2, axis=0)).mean()) / spread)


def seam_step(changes: np.ndarray, window: int) -> float | None:
    """The largest change [T] at a seam (frames that are a multiple of ``window``) by the median of all others.

    None for a clip without a seam, or one that stays.
    """
    at = np.arange(len(changes))
    seams, others = changes[(at % window == 0) & (at > 0)], changes[(at % window != 0) & (at > 0)]
    usual = float(np.median(others)) if len(others) else 0.0
    return float(seams.max()) / usual if len(seams) and usual > 1e-9 else None


def distances(shown: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Euclidean distance of codes [n, D] of rendered frames from those asked for [n, D]: [n]."""
    found: np.ndarray = np.linalg.norm(shown - asked, axis=1)
    return found


def cosine_distances(shown: np.ndarray, source: np.ndarray) -> np.ndarray:
    """1 - cosine between vectors [n, D] and one [D]: 0 for the same direction, up to 2."""
    a, b = shown.astype(np.float64), source.astype(np.float64).reshape(-1)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b)
    found: np.ndarray = 1 - (a @ b) / np.maximum(lengths, 1e-12)
    return found
