"""Where the face and the mouth are in a portrait, in parts of the picture's side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Box:
    """A rectangle in parts of the picture's width and height, 0..1; it may reach outside."""

    left: float
    top: float
    right: float
    bottom: float

    def within(self, left: float, top: float, right: float, bottom: float) -> Box:
        """The part of this box that the four numbers, in parts of the box, name."""
        width, height = self.right - self.left, self.bottom - self.top
        return Box(
            self.left + left * width, self.top + top * height, self.left + right * width, self.top + bottom * height
        )

    def grid(self, rows: int, columns: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Row and column numbers of ``rows`` x ``columns`` evenly spread pixels of a picture of ``size`` (H, W)."""
        height, width = size
        y = np.linspace(self.top, self.bottom, rows) * height
        x = np.linspace(self.left, self.right, columns) * width
        return np.clip(y.astype(int), 0, height - 1), np.clip(x.astype(int), 0, width - 1)


FRAMED_FACE = Box(0.272, 0.1875, 0.728, 0.8125)
"""The face of a portrait as the published crop rules frame it: the square is 1.6 times the height of the face's box,
which is 0.73 times as wide as high, and has its middle in common. A portrait that is used uncropped is taken for one
that is framed like this."""

_MOUTH = (0.32, 0.68, 0.68, 0.92)
"""Of a face's box from hairline to chin and from cheek to cheek."""


def mouth_of(face: Box) -> Box:
    """What lies between the lips, with room for a head that moves a little."""
    return face.within(*_MOUTH)


def head_of(face: Box) -> Box:
    """The face with a quarter of its size around it, so that one that moves is still there."""
    return face.within(-0.25, -0.25, 1.25, 1.25)
