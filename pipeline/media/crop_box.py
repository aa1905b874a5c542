"""The published face crops, as pure functions of a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import InputError

CropRule = Literal["audio", "video", "app"]
"""Whose rule: the published audio-driven command line, video-driven command line, or demo app."""

ScoredBox = tuple[float, float, float, float, float]
"""``(x1, y1, x2, y2, score)`` in pixels, as the published S3FD detector gives it."""

THRESHOLDS: dict[CropRule, float] = {"audio": 0.95, "video": 0.95, "app": 0.5}
"""Published score above which a box counts as a face."""


@dataclass(frozen=True)
class CropBox:
    """Where a picture is cut, in its own pixels. It may reach outside; what is outside is black."""

    x0: int
    y0: int
    width: int
    height: int
    picture: tuple[int, int]
    """Width and height of the picture it belongs to."""

    @property
    def valid(self) -> tuple[int, int, int, int]:
        """The part inside the picture: ``(x0, y0, x1, y1)``, end exclusive."""
        width, height = self.picture
        return max(self.x0, 0), max(self.y0, 0), min(self.x0 + self.width, width), min(self.y0 + self.height, height)


def crop_box(boxes: Sequence[ScoredBox], size: tuple[int, int], rule: CropRule) -> CropBox:
    """The crop a published entry point makes: `crop_around` the first box above its threshold.

    Args:
        boxes: what the detector found, most certain first.
        size: ``(width, height)`` of the picture.
        rule: whose rule.

    Without a face the three differ, as published: ``audio`` raises `InputError`, ``video`` takes the whole picture
    (which isn't square, so scaling it distorts), ``app`` takes the largest centred square.
    """
    face = next((box for box in boxes if box[4] > THRESHOLDS[rule]), None)
    if face is not None:
        return crop_around(face[:4], size, rule)
    if rule == "audio":
        best = max((box[4] for box in boxes), default=None)
        raise InputError(
            f"expected a face with a score above {THRESHOLDS[rule]}, found "
            + ("none" if best is None else f"a best score of {best:g}"),
            hint="use a picture with a clear face, or set crop=false",
        )
    width, height = size
    if rule == "video":
        return CropBox(0, 0, width, height, size)
    side = min(width, height)
    return CropBox((width - side) // 2, (height - side) // 2, side, side, size)


def crop_around(box: tuple[float, float, float, float], size: tuple[int, int], rule: CropRule) -> CropBox:
    """The published crop around one face ``(x1, y1, x2, y2)``; coordinates are truncated toward zero first.

    Raises `InputError` if nothing of the picture would be left.
    """
    x1, y1, x2, y2 = (int(value) for value in box)
    crop = {"audio": _audio, "video": _video, "app": _app}[rule](x1, y1, x2, y2, *size)
    left, top, right, bottom = crop.valid
    if right <= left or bottom <= top:
        raise InputError(
            f"expected a face inside the {size[0]}x{size[1]} picture, found the box {x1, y1, x2, y2}",
            hint="use a picture that shows the whole face, or set crop=false",
        )
    return crop


def cut(image: np.ndarray, box: CropBox) -> np.ndarray:
    """Cut uint8 [H, W, 3] at ``box``: uint8 [box.height, box.width, 3], black where it reaches outside."""
    x0, y0, x1, y1 = box.valid
    out = np.zeros((box.height, box.width, 3), dtype=np.uint8)
    out[y0 - box.y0 : y1 - box.y0, x0 - box.x0 : x1 - box.x0] = image[y0:y1, x0:x1]
    return out


def _audio(x1: int, y1: int, x2: int, y2: int, width: int, height: int) -> CropBox:
    """Clip each side to the picture; the shorter extent becomes the side, anchored at the top left."""
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    half = max(int(0.8 * (x2 - x1)), int(0.8 * (y2 - y1)))
    left, top = max(x - half, 0), max(y - half, 0)
    side = min(min(x + half, width) - left, min(y + half, height) - top)
    return CropBox(left, top, side, side, (width, height))


def _video(x1: int, y1: int, x2: int, y2: int, width: int, height: int) -> CropBox:
    """Always a full square; the picture is padded with black."""
    x, y = int((x1 + x2) / 2), int((y1 + y2) / 2)
    half = int(1.6 * max(int((y2 - y1) / 2), int((x2 - x1) / 2)))
    return CropBox(x - half, y - half, 2 * half, 2 * half, (width, height))


def _app(x1: int, y1: int, x2: int, y2: int, width: int, height: int) -> CropBox:
    """Shift the square inside, clip it, and make it square again at its top left."""
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    half = int(0.8 * max(x2 - x1, y2 - y1))
    left, right = _shift_inside(x - half, x + half, width)
    top, bottom = _shift_inside(y - half, y + half, height)
    side = min(right - left, bottom - top)
    return CropBox(left, top, side, side, (width, height))


def _shift_inside(start: int, end: int, length: int) -> tuple[int, int]:
    if start < 0:
        start, end = 0, end - start
    if end > length:
        start, end = max(start - (end - length), 0), length
    return start, end
