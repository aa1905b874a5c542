"""Conditions from an avatar's states, against rotations by hand and the avatar's own geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from imtalker.avatars.pose import Pose
from imtalker.avatars.state import NEUTRAL, STATE_FIELDS
from pipeline.avatars.conditions import GAZE_RANGE, NEUTRAL_SCALE, ClipConditions, conditions_of, read_conditions
from pipeline.errors import InputError


def conditions(**fields: float) -> ClipConditions:
    """Of one frame, neutral but for ``fields``."""
    state = dict(zip(STATE_FIELDS, NEUTRAL, strict=True)) | fields
    return conditions_of({name: np.array([value]) for name, value in state.items()})


def matrix(vector: np.ndarray) -> np.ndarray:
    """The rotation by a vector, by the series of its exponential."""
    x, y, z = vector.astype(np.float64)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    term, total = np.eye(3), np.eye(3)
    for n in range(1, 30):
        term = term @ cross / n
        total = total + term
    return total


def test_each_turn_alone() -> None:
    neutral = conditions()
    assert not neutral.pose.any() and not neutral.gaze.any()
    np.testing.assert_allclose(conditions(pitch=0.3).pose, [[0.3, 0, 0]], atol=1e-7)
    np.testing.assert_allclose(conditions(yaw=-0.4).pose, [[0, -0.4, 0]], atol=1e-7)
    np.testing.assert_allclose(conditions(roll=0.2).pose, [[0, 0, -0.2]], atol=1e-7)


def test_the_rotation_is_the_one_that_moves_the_avatars_face() -> None:
    """The tip of the head's ellipsoid goes where the drawing puts it (x right, y down there)."""
    state = {"yaw": 0.5, "pitch": -0.3, "roll": 0.6}
    values = torch.tensor(NEUTRAL)[None].clone()
    for name, value in state.items():
        values[0, STATE_FIELDS.index(name)] = value
    pose, zero = Pose(values), torch.zeros(1, 1, 1)
    x, y = pose.from_ball(zero, zero - 0.06, 1.0)
    tip = matrix(conditions(**(state | {"roll": 0.0})).pose[0]) @ [0, 0, 1]
    assert x.item() == pytest.approx(0.56 * tip[0], abs=1e-5)
    assert y.item() + 0.06 == pytest.approx(-0.62 * tip[1], abs=1e-5)
    # Roll turns the head about a point in the picture's plane: directions turn as it does.
    right = torch.stack(
        [a - b for a, b in zip(pose.from_head(zero + 1, zero), pose.from_head(zero, zero), strict=True)]
    )
    rolled = matrix(conditions(roll=0.6).pose[0]) @ [1, 0, 0]
    np.testing.assert_allclose(right.flatten(), [rolled[0], -rolled[1]], atol=1e-6)
    whole = matrix(conditions(**state).pose[0])
    parts = (
        matrix(conditions(roll=0.6).pose[0])
        @ matrix(conditions(pitch=-0.3).pose[0])
        @ matrix(conditions(yaw=0.5).pose[0])
    )
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_the_camera_puts_a_point_where_the_avatar_is() -> None:
    ((scale, right, up),) = conditions(scale=1.5, x=0.1, y=0.2).camera
    assert scale == pytest.approx(1.5 * NEUTRAL_SCALE)
    # The avatar's shift is in picture widths, which are two units wide, and y is down there.
    assert scale * right == pytest.approx(0.2) and scale * up == pytest.approx(-0.4)
    np.testing.assert_allclose(conditions().camera, [[NEUTRAL_SCALE, 0, 0]])


def test_gaze_is_that_of_head_and_eyes() -> None:
    np.testing.assert_allclose(conditions(gaze_y=1).gaze, [[-GAZE_RANGE, 0]], atol=1e-6)
    np.testing.assert_allclose(conditions(gaze_x=1).gaze, [[0, -GAZE_RANGE]], atol=1e-6)
    np.testing.assert_allclose(conditions(yaw=0.3, gaze_x=-0.6).gaze, [[0, 0]], atol=1e-6)
    np.testing.assert_allclose(conditions(pitch=-0.2, gaze_y=-0.4).gaze, [[0.4, 0]], atol=1e-6)
    # A head that is tilted by a quarter turn looks down where its eyes look to their side.
    quarter = conditions(roll=np.pi / 2, gaze_x=1).gaze
    np.testing.assert_allclose(quarter, [[-GAZE_RANGE, 0]], atol=1e-6)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.parquet"
    with pytest.raises(InputError, match="it can't be read \\(FileNotFoundError\\)"):
        read_conditions(path)
    path.write_bytes(b"no table")
    with pytest.raises(InputError, match="expected the states of an avatar's clip"):
        read_conditions(path)
    state = {name: [value] for name, value in zip(STATE_FIELDS, NEUTRAL, strict=True)}
    pq.write_table(pa.table({name: value for name, value in state.items() if name != "roll"}), path)
    with pytest.raises(InputError, match="it has no column roll"):
        read_conditions(path)
    pq.write_table(pa.table(state | {"yaw": [np.nan]}), path)
    with pytest.raises(InputError, match="not finite"):
        read_conditions(path)
    pq.write_table(pa.table(state), path)
    assert read_conditions(path).pose.shape == (1, 3)
