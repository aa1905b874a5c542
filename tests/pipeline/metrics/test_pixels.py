"""Frames whose defects are known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics.pixels import PixelMeter, SourceLook, frozen, largest_step, longest_run
from pipeline.metrics.regions import FRAMED_FACE, Box, mouth_of
from tests.media_files import grey_frame, smooth_picture

SIZE = 128


def portrait(seed: int = 3) -> np.ndarray:
    return smooth_picture(seed, SIZE, SIZE)


def meter(frames: list[np.ndarray], batch: int = 4) -> PixelMeter:
    found = PixelMeter(SourceLook.of(portrait()))
    for start in range(0, len(frames), batch):
        found.add(np.stack(frames[start : start + batch]))
    return found


def shifted(right: int, down: int = 0) -> np.ndarray:
    return np.roll(portrait(), (down, right), axis=(0, 1))


def test_how_frames_are_batched_changes_nothing() -> None:
    frames = [shifted(index % 5) for index in range(23)]
    one, other = meter(frames, 1), meter(frames, 7)
    assert len(one) == 23
    for name in ("brightness", "brightest", "change", "opening", "shifts", "sharpnesses", "strangeness"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-5, err_msg=name)
    assert one.flicker == pytest.approx(other.flicker)


def test_frames_are_only_read() -> None:
    frames = np.stack([portrait()] * 3)
    frames.setflags(write=False)
    PixelMeter(SourceLook.of(portrait())).add(frames)


def test_black_is_black_in_nearly_every_pixel() -> None:
    spotted = grey_frame(0, SIZE, SIZE)
    spotted[:40, :40] = 200
    assert meter([portrait(), grey_frame(0, SIZE, SIZE), grey_frame(15, SIZE, SIZE), spotted]).black_frames == 2


def test_other_colours_are_strange_and_a_head_that_moves_is_not() -> None:
    own = portrait() // 2
    redder = own + np.array([60, 0, 0], np.uint8)
    found = PixelMeter(SourceLook.of(own))
    found.add(np.stack([own] * 10 + [redder] * 10 + [np.roll(own, 2, axis=1)] * 10))
    same, strange, moved = found.strangeness
    assert same == 0
    assert strange == pytest.approx(20)
    assert moved < 4


def test_the_largest_step_is_told_by_the_usual_one() -> None:
    assert largest_step(np.array([0.0, 1, 2, 1, 30, 1, 2])) == pytest.approx(20)
    assert largest_step(np.array([0.0, 1, 1, 1])) == pytest.approx(1), "the first frame has none before it"
    assert largest_step(np.zeros(5)) is None
    assert largest_step(np.array([0.0])) is None


def test_the_face_is_followed_in_both_directions() -> None:
    found = meter([shifted(0)] * 5 + [shifted(6, 10)] * 5 + [shifted(-6, 0)] * 5)
    right, down = np.array(found.shifts).T
    assert right * SIZE == pytest.approx(np.repeat([0, 6, -6], 5), abs=1)
    assert down * SIZE == pytest.approx(np.repeat([0, 10, 0], 5), abs=1)
    assert found.head_range * SIZE == pytest.approx(12 * 0.9, abs=2)


def test_flicker_is_that_of_the_still_parts() -> None:
    base = portrait().astype(int)
    still = meter([portrait()] * 10)
    flickering = meter([np.clip(base + (6 if index % 2 else 0), 0, 255).astype(np.uint8) for index in range(10)])
    moving = []
    for index in range(10):
        frame = portrait()
        frame[64:] = np.roll(frame[64:], 9 * index, axis=1)
        moving.append(frame)
    assert still.flicker == 0
    assert flickering.flicker == pytest.approx(6, abs=0.3)
    assert meter(moving).flicker == pytest.approx(0, abs=1e-6)
    assert meter([portrait()] * 2).flicker is None


def test_an_open_mouth_has_contrast() -> None:
    closed = grey_frame(150, SIZE, SIZE)
    opened = closed.copy()
    rows, columns = mouth_of(FRAMED_FACE).grid(20, 20, (SIZE, SIZE))
    opened[rows[5] : rows[15], columns[4] : columns[16]] = 20
    found = meter([closed, opened, closed])
    assert found.opening[1] > 40
    assert found.opening[0] == found.opening[2] == pytest.approx(0, abs=1e-3)


def test_boxes_are_parts_of_boxes() -> None:
    assert Box(0.2, 0.4, 0.6, 0.8).within(0.5, 0, 1, 0.5) == Box(0.4, 0.4, 0.6, 0.6000000000000001)
    rows, columns = Box(-0.5, 0.5, 0.5, 1.5).grid(3, 3, (100, 100))
    assert (rows.tolist(), columns.tolist()) == ([50, 99, 99], [0, 0, 50])


def test_a_frame_is_frozen_only_if_it_was_asked_to_move() -> None:
    change = [0.0, 1, 1, 0, 0, 1, 1, 0.001, 1]
    assert frozen(change, None).tolist() == [False, False, False, True, True, False, False, True, False]
    asked = np.array([0, 1, 1, 1, 0.01, 1, 1, 1, 1])
    assert frozen(change, asked).tolist() == [False, False, False, True, False, False, False, True, False]
    assert longest_run(frozen(change, None)) == 2
    assert frozen([0.0] * 9, None).sum() == 8, "a clip that stands still from its first frame"
