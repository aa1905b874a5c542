"""Motion codes against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.metrics.codes import cosine_distances, distances, jitter, seam_step, steps


def test_a_straight_line_has_no_jitter_and_noise_has_that_of_white_noise() -> None:
    line = np.arange(200)[:, None] * np.array([1.0, -2.0, 0.5])
    noise = np.random.default_rng(0).normal(size=(20_000, 4))
    assert jitter(line) == pytest.approx(0, abs=1e-9)
    assert jitter(noise) == pytest.approx(math.sqrt(6), rel=0.02)
    assert jitter(noise * 1000) == pytest.approx(jitter(noise))
    assert jitter(np.ones((10, 3))) is None
    assert jitter(line[:2]) is None


def test_steps_are_distances_and_begin_with_none() -> None:
    assert steps(np.array([[0.0, 0], [3, 4], [3, 4]])).tolist() == [0, 5, 0]
    assert steps(np.zeros((0, 4))).tolist() == []


def test_long_clips_are_taken_in_blocks_that_show_nowhere() -> None:
    walk = np.random.default_rng(1).normal(size=(9000, 3)).cumsum(axis=0).astype(np.float32)
    exact = walk.astype(np.float64)
    np.testing.assert_allclose(steps(walk)[1:], np.linalg.norm(np.diff(exact, axis=0), axis=1))
    bent = np.sqrt(np.square(np.diff(exact, 2, axis=0)).mean() / exact.var(axis=0).mean())
    assert jitter(walk) == pytest.approx(bent)


def test_a_jump_at_a_seam_shows_and_one_elsewhere_does_not() -> None:
    even = np.ones(150)
    even[0] = 0
    at_seam, elsewhere = even.copy(), even.copy()
    at_seam[100], elsewhere[70] = 7, 7
    assert seam_step(even, 50) == 1
    assert seam_step(at_seam, 50) == 7
    assert seam_step(elsewhere, 50) == 1
    assert seam_step(at_seam[:101], 50) == 7, "in the last frame"
    assert seam_step(even[:50], 50) is None, "no seam"
    assert seam_step(np.zeros(150), 50) is None, "nothing moves"


def test_what_moves_fast_for_some_frames_is_no_jump() -> None:
    gesture = np.ones(150)
    gesture[98:103] = 5, 7, 9, 7, 5
    assert seam_step(gesture, 50) == pytest.approx(9 / 7)
    gesture[50] = 3
    assert seam_step(gesture, 50) == 3, "the other seam"


def test_distances() -> None:
    asked = np.zeros((2, 4))
    assert distances(asked + np.array([3, 4, 0, 0]), asked).mean() == 5
    found = cosine_distances(np.array([[2.0, 0], [0, 1], [-1, 0]]), np.array([5.0, 0]))
    assert found == pytest.approx([0, 1, 2])
