"""The visible label: the text that a profile draws into the first seconds of a video.

GB 45438-2025 (China): text with "AI" and "生成" (generated) at the start of a video, for at least two seconds, at least
5 % of the shorter side high.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import ceil

import numpy as np
from PIL import Image, ImageDraw

SECONDS = 2
_HEIGHT = 0.06
"""Of the text, as part of the picture's shorter side."""
_LEGIBLE = 20
"""Pixels of height under which Chinese characters can't be read; small pictures get them if a sixth allows."""
_MARGIN, _PADDING, _GAP = 0.6, 0.35, 0.2
"""Round the plate, within it, and between characters, in heights of the text."""
_STROKE = 0.09
_PLATE = 0.65
"""How much of the picture the dark plate behind the text hides."""
_OVERSAMPLING = 8

_Stroke = tuple[tuple[float, float], ...]

_CHARACTERS: tuple[tuple[float, tuple[_Stroke, ...]], ...] = (
    # Width and strokes of A, I, 生 and 成; x to the right and y down, in heights.
    (0.80, (((0.02, 1.0), (0.40, 0.0), (0.78, 1.0)), ((0.15, 0.66), (0.65, 0.66)))),
    (0.12, (((0.06, 0.0), (0.06, 1.0)),)),
    (
        1.0,
        (
            ((0.27, 0.08), (0.21, 0.26), (0.08, 0.46)),
            ((0.22, 0.27), (0.90, 0.27)),
            ((0.18, 0.61), (0.86, 0.61)),
            ((0.53, 0.0), (0.53, 0.97)),
            ((0.03, 0.97), (0.98, 0.97)),
        ),
    ),
    (
        1.0,
        (
            ((0.14, 0.24), (0.96, 0.24)),
            ((0.15, 0.24), (0.15, 0.52), (0.12, 0.76), (0.02, 1.0)),
            ((0.15, 0.49), (0.44, 0.49), (0.43, 0.72), (0.40, 0.84), (0.27, 0.81)),
            ((0.55, 0.0), (0.57, 0.28), (0.64, 0.58), (0.75, 0.83), (0.87, 0.97), (0.94, 0.98), (0.97, 0.76)),
            ((0.87, 0.40), (0.77, 0.62), (0.62, 0.81), (0.44, 0.97)),
            ((0.71, 0.02), (0.85, 0.13)),
        ),
    ),
)


def drawn(profile: str) -> str | None:
    """What of a label's profile is in the pictures: its name, None for nothing."""
    return profile if profile == "cn" else None


@dataclass(frozen=True)
class VisibleLabel:
    """ "AI生成" in white on a dark plate, bottom right, for the first `SECONDS` of a video."""

    width: int
    height: int
    fps: int

    @property
    def frames(self) -> int:
        """How many frames show it."""
        return SECONDS * self.fps

    def on(self, frames: np.ndarray, first: int) -> np.ndarray:
        """The frames with the label on those that show it.

        Args:
            frames: uint8 [n, height, width, 3] RGB; left as they are.
            first: index of the first of them in the video.

        Returns:
            uint8 [n, height, width, 3]; ``frames`` itself where none shows the label.
        """
        count = min(len(frames), self.frames - first)
        if count <= 0:
            return frames
        labelled = frames.copy()
        (top, left), cover, light = _plate(self.width, self.height)
        place = labelled[:count, top : top + len(cover), left : left + cover.shape[1]]
        place[:] = np.rint(place * (1 - cover[..., None]) + light[..., None])
        return labelled


def text_height(width: int, height: int) -> int:
    """Height of the text in pixels, for a picture of that size."""
    side = min(width, height)
    return max(ceil(_HEIGHT * side), min(_LEGIBLE, side // 6))


@cache
def _plate(width: int, height: int) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """Where the plate begins (row, column); how much of the picture it hides, 0..1, and what it adds, 0..255 [h, w]."""
    size = text_height(width, height)
    text, padding = _text(size), round(_PADDING * size)
    ink = np.pad(text, padding)
    plate = np.full_like(ink, _PLATE)
    top, left = (side - length - round(_MARGIN * size) for side, length in zip((height, width), ink.shape, strict=True))
    return (max(top, 0), max(left, 0)), ink + plate * (1 - ink), 255 * ink


def _text(size: int) -> np.ndarray:
    """How much of each pixel the text covers: float32 [size, w] in 0..1."""
    scale, pen = size * _OVERSAMPLING, _STROKE * size * _OVERSAMPLING
    # The strokes' middle lines stand in a box that is smaller by the pen's width.
    inner = scale - pen
    total = sum(width for width, _ in _CHARACTERS) + _GAP * (len(_CHARACTERS) - 1)
    columns = ceil((total * inner + pen) / _OVERSAMPLING)
    image = Image.new("L", (columns * _OVERSAMPLING, scale))
    draw = ImageDraw.Draw(image)
    at = 0.0
    for width, strokes in _CHARACTERS:
        for stroke in strokes:
            points = [(pen / 2 + (at + x) * inner, pen / 2 + y * inner) for x, y in stroke]
            for start, end in pairwise(points):
                draw.line((start, end), fill=255, width=round(pen))
            for x, y in points:
                draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
        at += width + _GAP
    reduced = image.reduce(_OVERSAMPLING)
    return np.asarray(reduced, dtype=np.float32) / 255
