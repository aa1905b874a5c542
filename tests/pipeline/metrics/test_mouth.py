"""A mouth that moves with its head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.metrics.mouth import FollowedMouth
from pipeline.metrics.regions import FRAMED_FACE, mouth_of

SIZE = 256


def picture(opening: float, right: int = 0, down: int = 0) -> np.ndarray:
    """Luma: a dark mouth, ``opening`` of its box high, on a bright face with a bright and a dark stripe above it."""
    luma = np.full((SIZE, SIZE), 150.0, np.float32)
    box = mouth_of(FRAMED_FACE)
    top, bottom, left, right_ = (round(edge * SIZE) for edge in (box.top, box.bottom, box.left, box.right))
    half, middle = opening * (bottom - top) / 2, (top + bottom) / 2
    luma[round(middle - half) : round(middle + half), left + 8 : right_ - 8] = 20
    luma[top - 14 : top - 7], luma[top - 28 : top - 21] = 250, 0
    return np.roll(luma, (down, right), axis=(0, 1))


def followed(
    pictures: Sequence[np.ndarray], shifts: Sequence[tuple[float, float]] | None = None, batch: int = 4
) -> np.ndarray:
    mouth = FollowedMouth(FRAMED_FACE)
    rows, columns = mouth.grid((SIZE, SIZE))
    luma = np.stack(pictures)[:, rows[:, None], columns[None]]
    places = shifts or [(0.0, 0.0)] * len(luma)
    for start in range(0, len(luma), batch):
        mouth.add(luma[start : start + batch], places[start : start + batch])
    return mouth.opening


def test_a_head_that_moves_takes_its_mouth_along() -> None:
    openings = [0.2 + 0.2 * (index % 3) for index in range(40)]
    away = [round(20 * np.sin(index / 12)) for index in range(40)]
    still = followed([picture(opening) for opening in openings])
    moving = [picture(opening, pixels, pixels) for opening, pixels in zip(openings, away, strict=True)]
    shifts = [(pixels / SIZE, pixels / SIZE) for pixels in away]
    assert np.corrcoef(still, followed(moving, shifts))[0, 1] > 0.98
    assert np.corrcoef(still, followed(moving))[0, 1] < 0.8, "which a box that stays would not do"


def test_a_place_that_one_frame_alone_tells_counts_little() -> None:
    openings = [0.4] * 20
    pictures = [picture(opening) for opening in openings]
    jumps = [(0.0, 0.05 if index == 10 else 0.0) for index in range(20)]
    assert followed(pictures, jumps) == pytest.approx(followed(pictures), rel=0.15)


def test_a_face_that_is_far_away_is_looked_for_as_far_as_there_are_pixels() -> None:
    far = followed([picture(0.4)] * 3, [(9.0, -9.0)] * 3)
    assert np.isfinite(far).all() and len(far) == 3


@pytest.mark.parametrize("count", [1, 7, 8, 30])
def test_every_frame_has_an_opening_at_any_time_however_they_come(count: int) -> None:
    pictures = [picture(0.1 + 0.02 * index, index) for index in range(count)]
    shifts = [(index / SIZE, 0.0) for index in range(count)]
    one, all_at_once = followed(pictures, shifts, 1), followed(pictures, shifts, 99)
    assert len(one) == count
    np.testing.assert_array_equal(one, all_at_once)
    assert not len(FollowedMouth(FRAMED_FACE).opening)
