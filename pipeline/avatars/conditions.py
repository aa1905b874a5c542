"""The states of an avatar's clip as a generator's conditions: what SMIRK and L2CS-Net would measure, exactly.

Directions are those of FLAME, as seen in the picture: x to the right, y up, z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError

NEUTRAL_SCALE = 8.0
"""SMIRK's scale for an avatar of scale 1: a head in metres, and a crop that it fills."""

GAZE_RANGE = 0.5
"""Radians by which the eyes are turned in the head where the state says 1."""

_COLUMNS = ("yaw", "pitch", "roll", "x", "y", "scale", "gaze_x", "gaze_y")


@dataclass(frozen=True)
class ClipConditions:
    """Of N frames, float32."""

    pose: np.ndarray
    """[N, 3]: the head's rotation as a vector, radians (``pose_params``). Near zero: pitch, + down; yaw, + to picture
    right; roll, + counter-clockwise as seen."""
    camera: np.ndarray
    """[N, 3]: scale and shift (``cam``), a point's place in the picture being scale * (point + shift), -1..1, y up."""
    gaze: np.ndarray
    """[N, 2]: where the eyes look in the picture, head and eyes together, radians: pitch, + up; yaw, + to picture
    left."""


def read_conditions(path: Path) -> ClipConditions:
    """The conditions of a clip from its file of states. Raises InputError for a file that isn't one."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=list(_COLUMNS))
    except (OSError, pa.ArrowException) as exc:
        raise _unusable(path, f"it can't be read ({type(exc).__name__})") from exc
    if absent := [name for name in _COLUMNS if name not in table.column_names]:
        raise _unusable(path, f"it has no column {', '.join(absent)}")
    state = {name: table[name].to_numpy().astype(np.float64) for name in _COLUMNS}
    found = conditions_of(state)
    if not all(np.isfinite(rows).all() for rows in (found.pose, found.camera, found.gaze)):
        raise _unusable(path, "it holds values that are not finite")
    return found


def conditions_of(state: dict[str, np.ndarray]) -> ClipConditions:
    """The columns of a states file, [N] each, as conditions."""
    # The head turns by yaw first, then pitch, then roll (see `imtalker.avatars.pose`).
    turn = _product(_rotation(2, -state["roll"]), _product(_rotation(0, state["pitch"]), _rotation(1, state["yaw"])))
    eyes = _product(_rotation(0, GAZE_RANGE * state["gaze_y"]), _rotation(1, GAZE_RANGE * state["gaze_x"]))
    right, up, near = _forward(_product(turn, eyes)).T
    scale = NEUTRAL_SCALE * state["scale"]
    return ClipConditions(
        _rows(*_vector(turn).T),
        _rows(scale, 2 * state["x"] / scale, -2 * state["y"] / scale),
        _rows(np.arcsin(up.clip(-1, 1)), np.arctan2(-right, near)),
    )


def _rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """Quaternions [N, 4] (real part first) of rotations about an axis."""
    turns = np.zeros((len(angle), 4))
    turns[:, 0], turns[:, 1 + axis] = np.cos(angle / 2), np.sin(angle / 2)
    return turns


def _product(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Quaternions of one rotation after another."""
    (a, u), (b, v) = (np.split(turns, [1], axis=1) for turns in (after, before))
    return np.hstack([a * b - (u * v).sum(1, keepdims=True), a * v + b * u + np.cross(u, v)])


def _vector(turns: np.ndarray) -> np.ndarray:
    """Axis times angle, [N, 3]; angles are below pi."""
    real, imaginary = np.split(turns, [1], axis=1)
    size = np.linalg.norm(imaginary, axis=1, keepdims=True)
    return imaginary * np.divide(2 * np.arctan2(size, real), size, out=np.full_like(size, 2.0), where=size > 0)


def _forward(turns: np.ndarray) -> np.ndarray:
    """Where rotations take the direction towards the viewer, [N, 3]."""
    w, x, y, z = turns.T
    return np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)


def _rows(*columns: np.ndarray) -> np.ndarray:
    return np.stack(columns, axis=1).astype(np.float32)


def _unusable(path: Path, reason: str) -> InputError:
    return InputError(
        f"expected the states of an avatar's clip in {path}, but {reason}",
        hint="give the folder states/ that imtalker avatars render wrote beside the clips",
    )
