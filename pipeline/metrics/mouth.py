"""How open a mouth is by pixels, in a box that goes where the face goes."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence

import numpy as np

from pipeline.metrics.regions import Box, mouth_of

_GRID = (32, 40)
_REACH = 0.25
"""Of the face's size: so far around it, too, is its place looked for."""
_AROUND = 7
"""Frames before and after whose places count: lips that open shift the best match for a moment, heads move slowly."""
_WEIGHTS = np.hanning(2 * _AROUND + 3)[1:-1]


class FollowedMouth:
    """Takes frames in order and keeps three numbers of each, and pixels of the last seven.

    ``shifts`` are the places of the faces that it was given.
    """

    def __init__(self, face: Box) -> None:
        mouth = mouth_of(face)
        self._cell = ((mouth.right - mouth.left) / (_GRID[1] - 1), (mouth.bottom - mouth.top) / (_GRID[0] - 1))
        across, down = self._cell
        self._most = (
            round(_REACH * (face.right - face.left) / across),
            round(_REACH * (face.bottom - face.top) / down),
        )
        self._box = Box(
            mouth.left - self._most[0] * across,
            mouth.top - self._most[1] * down,
            mouth.right + self._most[0] * across,
            mouth.bottom + self._most[1] * down,
        )
        self.shifts: list[tuple[float, float]] = []
        self._found = array("d")
        self._waiting: deque[np.ndarray] = deque()

    def grid(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Row and column numbers of the pixels that `add` asks for, of a picture of ``size`` (H, W)."""
        return self._box.grid(_GRID[0] + 2 * self._most[1], _GRID[1] + 2 * self._most[0], size)

    def add(self, luma: np.ndarray, shifts: Sequence[tuple[float, float]]) -> None:
        """Luma [n, rows, columns] on the `grid`, and where the faces are: (right, down) in parts of the picture."""
        for patch, shift in zip(luma, shifts, strict=True):
            self.shifts.append(shift)
            self._waiting.append(patch)
            if len(self._waiting) > _AROUND:
                self._found.append(self._contrast(self._waiting.popleft(), len(self._found)))

    @property
    def opening(self) -> np.ndarray:
        """float [T]: standard deviation of luma in the box, of each frame so far.

        Teeth and the dark between the lips give contrast that closed lips don't have.
        """
        first = len(self._found)
        return np.array([*self._found, *(self._contrast(patch, first + at) for at, patch in enumerate(self._waiting))])

    def _contrast(self, patch: np.ndarray, index: int) -> float:
        frames = np.clip(np.arange(index - _AROUND, index + _AROUND + 1), 0, len(self.shifts) - 1)
        shift = np.average([self.shifts[frame] for frame in frames], axis=0, weights=_WEIGHTS)
        right, down = (
            int(np.clip(round(part / cell), -most, most) + most)
            for part, cell, most in zip(shift, self._cell, self._most, strict=True)
        )
        return float(patch[down : down + _GRID[0], right : right + _GRID[1]].std())
