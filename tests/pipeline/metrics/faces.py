"""Landmarks of made-up faces, and a tracker that finds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.metrics.face_geometry import POINTS

_LIPS = {13: 14, 82: 87, 312: 317, 81: 178, 311: 402}
_EYES = {(33, 133, 468): ((160, 144), (158, 153)), (362, 263, 473): ((385, 380), (387, 373))}
_EYE_WIDTH = 0.2


def face(
    lips: Sequence[float] = (0.0,), eyes: Sequence[float] = (0.3,), look: Sequence[tuple[float, float]] = ((0, 0),)
) -> np.ndarray:
    """float [T, 478, 3]: a frontal face of height 1 about 0.

    Args:
        lips: how far the lips are apart in each frame, in face heights.
        eyes: how far the lids are, in eye widths.
        look: how far right of and below its middle the iris is, in eye widths.
    """
    count = max(len(lips), len(eyes), len(look))
    points = np.zeros((count, POINTS, 3))
    points[:, 10, 1], points[:, 152, 1] = -0.5, 0.5
    points[:, 1, 2] = -0.1
    for place, (upper, lower) in enumerate(_LIPS.items()):
        for point, side in ((upper, -0.5), (lower, 0.5)):
            points[:, point, 0] = 0.04 * (place - 2)
            points[:, point, 1] = 0.25 + side * np.array(lips)
    for (left, right, iris), lids in _EYES.items():
        middle = -0.2 if left == 33 else 0.2
        points[:, left, :2] = middle - _EYE_WIDTH / 2, -0.1
        points[:, right, :2] = middle + _EYE_WIDTH / 2, -0.1
        points[:, iris, :2] = np.array((middle, -0.1)) + _EYE_WIDTH * np.array(look)
        for (upper, lower), at in zip(lids, (-0.03, 0.03), strict=True):
            for point, side in ((upper, -0.5), (lower, 0.5)):
                points[:, point, 0] = middle + at
                points[:, point, 1] = -0.1 + side * _EYE_WIDTH * np.array(eyes)
    return points


def turned(points: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The head's nose goes right and down and its crown right, as a camera sees it; degrees."""
    y, p, r = np.radians((yaw, pitch, roll))
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    result: np.ndarray = points @ (about_z @ about_y @ about_x).T
    return result


class MadeUp:
    """A tracker that finds ``points`` [T, 478, 3] in the frames of every video, in order.

    ``before`` is called with the number of the next frame.
    """

    def __init__(self, points: np.ndarray, before: Callable[[int], None] = lambda frame: None) -> None:
        self.points, self.before = points, before
        self.at = self.forgotten = 0

    def track(self, frames: np.ndarray) -> np.ndarray:
        self.before(self.at)
        self.at += len(frames)
        return self.points[self.at - len(frames) : self.at]

    def forget(self) -> None:
        self.at = 0
        self.forgotten += 1
