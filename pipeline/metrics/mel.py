"""The mel scale (O'Shaughnessy, "Speech Communication", 1987) and the filters that are laid on it."""

from __future__ import annotations

import numpy as np


def mel(hertz: np.ndarray | float) -> np.ndarray:
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))


def hertz_of(mels: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mels / 2595) - 1)


def triangles(edges: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Heights [n, bins] at the points ``at`` [bins] of n triangles that overlap by half, between ``edges`` [n + 2]."""
    rising = (at - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - at) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(rising, falling), 0, None)
