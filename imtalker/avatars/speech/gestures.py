"""Head, gaze, lids and brows of someone who talks: a seeded process, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from imtalker.avatars.speech.emphasis import Emphasis
from imtalker.seeded import raw_stream, unit_noise

GESTURE_COLUMNS = ("yaw", "pitch", "roll", "x", "y", "scale", "gaze_x", "gaze_y", "blink", "brows")

LIVELINESS = {"calm": 0.5, "natural": 1.0, "lively": 1.6}

BLINKS_APART_S = 0.5
"""From the end of a blink to the start of the next, at least."""

# Standard deviations of the poses, and the limits that squash them, for yaw, pitch, roll, x, y, scale.
_POSE = np.array([0.13, 0.06, 0.05, 0.012, 0.008, 0.015])
_SWAY = np.array([0.012, 0.010, 0.008, 0.002, 0.002, 0.003])
_LIMIT = np.array([0.5, 0.3, 0.25, 0.06, 0.05, 0.08])
# How much of a pose is kept in the next: the mean-reverting part of an Ornstein-Uhlenbeck process.
_KEPT = 0.5
_SWAY_HZ = (0.1, 0.45)
_SWAY_WAVES = 4
_POSE_EVERY_S, _POSE_MOVE_S = (0.7, 2.6), (0.5, 0.9)
_FIXATION_S, _SACCADE_S = (0.5, 2.4), 0.06
_AT_VIEWER = 0.6
_GAZE_SPREAD = np.array([0.35, 0.18])
_HEAD_FOLLOWS = np.array([0.16, 0.10])
_HEAD_LAG_S, _HEAD_MOVE_S = 0.08, 0.5
_BLINK_EVERY_S, _BLINK_S = 3.0, (0.2, 0.3)
# Parts of a blink's length in which the lids fall and rise; between them the eyes are shut for a frame at least.
_LIDS_FALL, _LIDS_RISE = 0.35, 0.45
_NOD_CHANCE, _NOD, _NOD_S = 0.7, 0.075, 0.4
_RAISE_CHANCE, _RAISE, _RAISE_S = 0.6, 0.55, 0.5
_BROW_DRIFT = 0.08


@dataclass
class _Draws:
    """Numbers in order from the stream that a name and a seed select."""

    name: str
    seed: int
    _drawn: int = field(default=0, init=False)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(raw_stream(self._next(), 1, self.seed)[0] >> np.uint64(11)) * 2.0**-53

    def normal(self, count: int) -> np.ndarray:
        return unit_noise(self._next(), count, self.seed)

    def exponential(self, mean: float) -> float:
        return -mean * float(np.log(1.0 - self.uniform()))

    def _next(self) -> str:
        self._drawn += 1
        return f"gestures/{self.name}/{self._drawn}"


def gesture(
    times: np.ndarray, *, seed: int, emphases: Sequence[Emphasis] = (), liveliness: float = LIVELINESS["natural"]
) -> np.ndarray:
    """float32 [T, 10] at ``times`` (seconds, ascending from 0 on), columns :data:`GESTURE_COLUMNS`.

    The head goes from pose to pose on minimum-jerk paths (Flash and Hogan 1985) and sways slowly; the eyes jump from
    fixation to fixation, mostly back to the viewer, and the head follows in part; the lids close for 0.2 to 0.3 s at
    random moments. Some ``emphases`` are marked with a nod or raised brows. ``liveliness`` scales head and brows (see
    :data:`LIVELINESS`); gaze and blinks keep their size.
    Raises ValueError where ``liveliness`` is not in 0..2.
    """
    if not 0.0 <= liveliness <= 2.0:
        raise ValueError(f"liveliness must lie in 0..2, found {liveliness}")
    end = float(times[-1]) if len(times) else 0.0
    gaze, saccades = _gaze(times, end, _Draws("gaze", seed))
    head = _poses(times, end, _Draws("poses", seed)) + _sway(times, _Draws("sway", seed))
    for start, jump in saccades:
        follow = _minimum_jerk((times - start - _HEAD_LAG_S) / _HEAD_MOVE_S)
        head[:, :2] += follow[:, None] * jump * _HEAD_FOLLOWS
    draws = _Draws("emphasis", seed)
    brows = _BROW_DRIFT * _sway(times, draws)[:, 0] / _SWAY[0]
    for emphasis in emphases:
        # Every emphasis draws the same numbers, so that one more changes none of the others.
        nods, raises = draws.uniform() < _NOD_CHANCE, draws.uniform() < _RAISE_CHANCE
        size, late = draws.uniform(0.6, 1.3) * emphasis.strength, draws.uniform(-0.05, 0.1)
        if nods:
            head[:, 1] += _NOD * size * _bump((times - emphasis.time_s - late) / _NOD_S)
        if raises:
            brows += _RAISE * size * _bump((times - emphasis.time_s) / _RAISE_S)
    head = _LIMIT * np.tanh(liveliness * head / _LIMIT)
    head[:, 5] += 1.0
    blink = _blinks(times, end, _Draws("blinks", seed))
    brows = np.tanh(liveliness * brows)
    return np.column_stack([head, gaze, blink, brows]).astype(np.float32)


def _poses(times: np.ndarray, end: float, draws: _Draws) -> np.ndarray:
    pose = _POSE * draws.normal(6)
    track = np.tile(pose, (len(times), 1))
    start = draws.uniform(0.0, _POSE_EVERY_S[1])
    while start < end:
        after = _KEPT * pose + np.sqrt(1.0 - _KEPT**2) * _POSE * draws.normal(6)
        moved = _minimum_jerk((times - start) / draws.uniform(*_POSE_MOVE_S))
        track += moved[:, None] * (after - pose)
        pose = after
        start += draws.uniform(*_POSE_EVERY_S)
    return track


def _sway(times: np.ndarray, draws: _Draws) -> np.ndarray:
    """[T, 6]: a few slow waves with random phases."""
    track = np.zeros((len(times), 6))
    for column in range(6):
        for _ in range(_SWAY_WAVES):
            frequency, phase = draws.uniform(*_SWAY_HZ), draws.uniform(0.0, 2.0 * np.pi)
            track[:, column] += np.sin(2.0 * np.pi * frequency * times + phase)
    return track * _SWAY * np.sqrt(2.0 / _SWAY_WAVES)


def _gaze(times: np.ndarray, end: float, draws: _Draws) -> tuple[np.ndarray, list[tuple[float, np.ndarray]]]:
    """[T, 2], and the (seconds, change) of every jump."""
    look = np.zeros(2)
    track = np.zeros((len(times), 2))
    jumps = []
    start = draws.uniform(*_FIXATION_S)
    while start < end:
        at_viewer = draws.uniform() < _AT_VIEWER
        after = np.clip((0.1 if at_viewer else 1.0) * _GAZE_SPREAD * draws.normal(2), -0.9, 0.9)
        track += _minimum_jerk((times - start) / _SACCADE_S)[:, None] * (after - look)
        jumps.append((start, after - look))
        look = after
        start += draws.uniform(*_FIXATION_S)
    return track, jumps


def _blinks(times: np.ndarray, end: float, draws: _Draws) -> np.ndarray:
    track = np.zeros(len(times))
    start = draws.exponential(_BLINK_EVERY_S)
    while start < end:
        length = draws.uniform(*_BLINK_S)
        phase = (times - start) / length
        track += _minimum_jerk(phase / _LIDS_FALL) * _minimum_jerk((1.0 - phase) / _LIDS_RISE)
        start += length + BLINKS_APART_S + draws.exponential(_BLINK_EVERY_S - BLINKS_APART_S)
    return track


def _minimum_jerk(phase: np.ndarray) -> np.ndarray:
    """0 before 0, 1 after 1, and between them the path of least jerk, 10 t^3 - 15 t^4 + 6 t^5."""
    t = np.clip(phase, 0.0, 1.0)
    return t**3 * (10.0 - 15.0 * t + 6.0 * t**2)


def _bump(phase: np.ndarray) -> np.ndarray:
    """A raised cosine of height 1 over -1/2..1/2."""
    return 0.5 + 0.5 * np.cos(2.0 * np.pi * np.clip(phase, -0.5, 0.5))
