"""What a face's 478 landmarks say: how open lips and eyes are, where the head is turned, where the eyes look.

Indices are those of MediaPipe's face mesh with refined irises (Kartynnik et al., "Real-time facial surface geometry
from monocular video on mobile GPUs", 2019; Grishchenko et al., "Attention mesh", 2020). Points are float [T, 478, 3]:
right, down and away from the camera, all in the same unit; what is made of NaN is NaN.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

POINTS = 478
_FOREHEAD, _CHIN = 10, 152
_OUTER_CORNERS = (33, 263)
_LIPS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
"""Inner edges: upper and lower lip."""
_EYES = ((33, 133, 468), (362, 263, 473))
"""Of each eye, as the picture shows them from the left: its left corner, its right corner, the middle of the iris."""
_LIDS = (((160, 144), (158, 153)), ((385, 380), (387, 373)))
_SHUT, _OPEN = 0.5, 0.65
"""Parts of the usual opening: an eye is shut below the one, and open again from the other on."""
_LONGEST_BLINK_S = 0.5
_LEAST_OPENING = 0.08
"""Eyes that are never wider open than this can't be seen to blink: they are shut, or not seen well."""


def lip_aperture(points: np.ndarray) -> np.ndarray:
    """[T]: mean distance of the lips' inner edges at five places, in face heights (forehead to chin); 0 is closed."""
    gaps = np.mean([_distance(points, *pair) for pair in _LIPS], axis=0)
    found: np.ndarray = gaps / _distance(points, _FOREHEAD, _CHIN)
    return found


def head_angles(points: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in degrees [T, 3]: the head turned right, down, and clockwise, as the picture shows it.

    The head's own axes go from one outer corner of the eyes to the other and from the forehead to the chin, the latter
    less what it has of the former. They are turned by roll after yaw after pitch. Where pitch is zero depends on the
    shape of the face, so compare angles of one person.
    """
    right = _unit(points[:, _OUTER_CORNERS[1]] - points[:, _OUTER_CORNERS[0]])
    down = points[:, _CHIN] - points[:, _FOREHEAD]
    down = _unit(down - right * (down * right).sum(-1, keepdims=True))
    away = np.cross(right, down)
    yaw = np.arcsin(np.clip(right[:, 2], -1, 1))
    pitch = np.arctan2(down[:, 2], away[:, 2])
    roll = np.arctan2(right[:, 1], right[:, 0])
    return np.degrees(np.stack([yaw, pitch, roll], axis=1))


def eye_opening(points: np.ndarray) -> np.ndarray:
    """[T]: distance of the lids in eye widths, mean of two places and both eyes; some 0.3 for open eyes.

    The eye aspect ratio of Soukupová and Čech, "Real-time eye blink detection using facial landmarks" (2016).
    """
    ratios = [
        np.mean([_distance(points, *lid) for lid in lids], axis=0) / _distance(points, left, right)
        for lids, (left, right, _) in zip(_LIDS, _EYES, strict=True)
    ]
    found: np.ndarray = np.mean(ratios, axis=0)
    return found


def gaze(points: np.ndarray) -> np.ndarray:
    """[T, 2]: how far right of the middle and below the line of its corners the iris is, in eye widths; mean of both.

    In the picture's plane. The second means little where lids are shut.
    """
    found = []
    for left, right, iris in _EYES:
        along = points[:, right, :2] - points[:, left, :2]
        width = np.linalg.norm(along, axis=-1, keepdims=True)
        along = along / width
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        offset = points[:, iris, :2] - (points[:, left, :2] + points[:, right, :2]) / 2
        found.append(np.stack([(offset * along).sum(-1), (offset * across).sum(-1)], axis=1) / width)
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


def shut(opening: np.ndarray) -> np.ndarray:
    """Bool [T]: frames whose `eye_opening` is less than half the usual one (90th percentile)."""
    return np.asarray(opening < _SHUT * _usual(opening))


def blinks(opening: np.ndarray, fps: float) -> int | None:
    """How often eyes [T], see `eye_opening`, shut for at most half a second; None if they are never seen open.

    What is under way at either end counts. Longer is not a blink.
    """
    if not len(opening) or _usual(opening) < _LEAST_OPENING:
        return None
    usual = _usual(opening)
    ends = [-1, *np.flatnonzero(opening >= _OPEN * usual), len(opening)]
    # Between two open frames lies one closing at most: an opening that is neither doesn't part it in two.
    closings = [(opening[start + 1 : end] < _SHUT * usual, end - start - 1) for start, end in pairwise(ends)]
    return sum(bool(low.any() and length <= _LONGEST_BLINK_S * fps) for low, length in closings)


def _usual(opening: np.ndarray) -> float:
    return float(np.percentile(opening, 90)) if len(opening) else 0.0


def _distance(points: np.ndarray, one: int, other: int) -> np.ndarray:
    found: np.ndarray = np.linalg.norm(points[:, one] - points[:, other], axis=-1)
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return found
