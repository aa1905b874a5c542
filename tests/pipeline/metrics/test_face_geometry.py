"""Closed forms: faces of straight lines, turned, opened and shut by known amounts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.metrics.face_geometry import blinks, eye_opening, gaze, head_angles, lip_aperture, shut
from tests.pipeline.metrics.faces import face, turned


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"),
    [(0, 0, 0), (30, 0, 0), (-25, 0, 0), (0, 20, 0), (0, 0, -35), (20, -15, 10), (-40, 25, 60)],
)
def test_a_turned_head_gives_its_angles_back(yaw: float, pitch: float, roll: float) -> None:
    points = turned(face(), yaw, pitch, roll)
    assert head_angles(points)[0] == pytest.approx((yaw, pitch, roll), abs=1e-6)
    assert head_angles(points * 7.5 + 100)[0] == pytest.approx((yaw, pitch, roll), abs=1e-6)


def test_angles_mean_what_the_picture_shows() -> None:
    """The nose, which stands out towards the camera, goes right with yaw and down with pitch."""
    nose = 1
    assert turned(face(), 20, 0, 0)[0, nose, 0] > 0.01
    assert turned(face(), 0, 20, 0)[0, nose, 1] > 0.01
    eyes = turned(face(), 0, 0, 20)[0, [33, 263], 1]
    assert eyes[0] < eyes[1]


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, -10, 15)])
def test_lips_open_by_parts_of_the_faces_height_however_it_is_turned(angles: tuple[float, float, float]) -> None:
    found = lip_aperture(turned(face(lips=[0, 0.05, 0.12]), *angles) * 300)
    assert found == pytest.approx([0, 0.05, 0.12], abs=1e-9)


def test_eyes_open_by_parts_of_their_width_however_the_head_is_turned() -> None:
    found = eye_opening(turned(face(eyes=[0, 0.1, 0.3]), 25, 10, -5))
    assert found == pytest.approx([0, 0.1, 0.3], abs=1e-9)


@pytest.mark.parametrize("roll", [0, 30, -70])
def test_gaze_is_where_the_iris_is_between_the_corners(roll: float) -> None:
    found = gaze(turned(face(look=[(0, 0), (0.2, 0), (-0.1, 0.05)]), 0, 0, roll))
    assert found == pytest.approx(np.array([(0, 0), (0.2, 0), (-0.1, 0.05)]), abs=1e-9)


def test_a_missing_face_has_no_numbers() -> None:
    points = face(lips=[0.1, 0.1])
    points[1] = np.nan
    for values in (lip_aperture(points), eye_opening(points), head_angles(points), gaze(points)):
        assert np.isfinite(values[0]).all()
        assert np.isnan(values[1]).all()


def opened(frames: int = 100, **closings: tuple[int, int]) -> np.ndarray:
    """Eyes that are shut in the frames from the first number up to the second."""
    values = np.full(frames, 0.3)
    for first, end in closings.values():
        values[first:end] = 0.05
    return values


@pytest.mark.parametrize(
    ("eyes", "count"),
    [
        (opened(), 0),
        (opened(a=(40, 44)), 1),
        (opened(a=(10, 12), b=(40, 44), c=(80, 81)), 3),
        (opened(a=(0, 3)), 1),
        (opened(a=(98, 100)), 1),
        (opened(a=(40, 53)), 0),
        (opened(a=(40, 52)), 1),
    ],
    ids=["none", "one", "three", "at the beginning", "at the end", "too long to be one", "half a second"],
)
def test_blinks_are_counted(eyes: np.ndarray, count: int) -> None:
    assert blinks(eyes, 25) == count
    assert shut(eyes).sum() == (eyes < 0.15).sum()


def test_a_lid_that_trembles_on_its_way_up_blinks_once() -> None:
    eyes = opened(a=(40, 47))
    eyes[[42, 44]] = 0.17
    assert blinks(eyes, 25) == 1


def test_half_closed_lids_do_not_blink() -> None:
    eyes = opened()
    eyes[40:44] = 0.17
    assert blinks(eyes, 25) == 0


def test_eyes_that_are_never_open_can_not_be_seen_to_blink() -> None:
    assert blinks(np.full(50, 0.03), 25) is None
    assert blinks(np.zeros(0), 25) is None


def test_seconds_count_and_not_frames() -> None:
    eyes = opened(a=(40, 60))
    assert (blinks(eyes, 25), blinks(eyes, 50)) == (0, 1)


def test_the_made_up_face_is_one() -> None:
    points = face()[0]
    assert math.dist(points[10], points[152]) == pytest.approx(1)
    assert np.isfinite(points).all()
