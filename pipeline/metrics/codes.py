"""What motion codes show: those that were asked for, and those that rendered frames have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 4096
"""Frames that are taken in double precision at once: an hour would be 23 MB."""


def steps(codes: np.ndarray) -> np.ndarray:
    """float [T, D] -> Euclidean distance of each code from the one before [T]; the first is 0."""
    moved = [np.linalg.norm(np.diff(block, axis=0), axis=1) for block in _blocks(codes, 1)]
    return np.concatenate([np.zeros(min(len(codes), 1)), *moved])


def jitter(codes: np.ndarray) -> float | None:
    """Root mean square of the second difference, in standard deviations of the codes over the clip.

    0 for a straight line, the square root of 6 for white noise. None for fewer than 3 frames or codes that stay.
    """
    if len(codes) < 3:
        return None
    mean = codes.mean(axis=0, dtype=np.float64)
    variance = sum(float(np.square(block - mean).sum()) for block in _blocks(codes, 0)) / codes.size
    bent = sum(float(np.square(np.diff(block, 2, axis=0)).sum()) for block in _blocks(codes, 2))
    if variance < 1e-18:
        return None
    return float(np.sqrt(bent / (codes[2:].size * variance)))


def _blocks(codes: np.ndarray, before: int) -> Iterator[np.ndarray]:
    """In double precision; each block but the first begins with so many frames of the one before."""
    for start in range(0, len(codes), _BLOCK):
        yield codes[max(start - before, 0) : start + _BLOCK].astype(np.float64)


def seam_step(changes: np.ndarray, window: int) -> float | None:
    """The change [T] at a seam (frames that are a multiple of ``window``) by the usual one; of all seams the largest.

    The usual one is the median of the changes that are at no seam, or the mean of the changes before and after the seam
    where that is more: a head that turns or lids that close take several frames, a jump takes one. None for a clip
    without a seam, or one that stays.
    """
    at = np.arange(len(changes))
    seams, others = at[(at % window == 0) & (at > 0)], changes[(at % window != 0) & (at > 0)]
    usual = float(np.median(others)) if len(others) else 0.0
    if not len(seams) or usual <= 1e-9:
        return None
    around = [np.mean([changes[i] for i in (seam - 1, seam + 1) if i < len(changes)]) for seam in seams]
    return float((changes[seams] / np.maximum(around, usual)).max())


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
