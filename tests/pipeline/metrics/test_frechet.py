"""The Fréchet distance against closed forms, and moments against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics.frechet import Moments, frechet_distance


def moments(features: np.ndarray) -> Moments:
    made = Moments(features.shape[1])
    made.add(features)
    return made


def exact(mean: np.ndarray, root: np.ndarray) -> Moments:
    """Whose mean is ``mean`` and whose covariance is ``root`` ``root``', but for rounding: of 2 D features."""
    width = len(mean)
    corners = np.concatenate([root.T, -root.T]) * np.sqrt((2 * width - 1) / 2)
    return moments(mean + corners)


def test_moments_are_numpys_and_the_same_in_parts_and_in_any_order() -> None:
    features = np.random.default_rng(0).normal(3, 2, (101, 7)).astype(np.float32)
    whole = moments(features)
    assert (whole.count, whole.width) == (101, 7)
    np.testing.assert_allclose(whole.mean(), features.astype(float).mean(0), rtol=1e-12)
    np.testing.assert_allclose(whole.covariance(), np.cov(features.astype(float), rowvar=False), rtol=1e-9, atol=1e-12)
    parts = moments(features[60:])
    parts.include(moments(features[:1]))
    parts.include(Moments(7))
    parts.include(moments(features[1:60]))
    assert parts.count == 101
    np.testing.assert_allclose(parts.mean(), whole.mean(), rtol=1e-12)
    np.testing.assert_allclose(parts.covariance(), whole.covariance(), rtol=1e-10)


def test_diagonal_gaussians() -> None:
    """Of independent numbers: the squared differences of means and of deviations."""
    ours, theirs = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 0.25, 0.5, 1.0])
    apart = np.array([0.5, -1.0, 0.0, 2.0])
    one, other = exact(np.zeros(4), np.diag(ours)), exact(apart, np.diag(theirs))
    np.testing.assert_allclose(one.covariance(), np.diag(ours**2), atol=1e-12)
    expected = (apart**2).sum() + ((ours - theirs) ** 2).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-12)


def test_covariances_that_turn_against_each_other() -> None:
    """In two dimensions tr (S1 S2)^(1/2) is the root of tr(S1 S2) + 2 root(det S1 det S2)."""
    one, other = (
        exact(np.zeros(2), np.array([[2.0, 0.0], [1.0, 0.5]])),
        exact(np.ones(2), np.array([[1.0, -2], [0, 1]])),
    )
    s1, s2 = one.covariance(), other.covariance()
    assert abs(s1 @ s2 - s2 @ s1).max() > 1
    shared = np.sqrt(np.trace(s1 @ s2) + 2 * np.sqrt(np.linalg.det(s1) * np.linalg.det(s2)))
    expected = 2 + np.trace(s1) + np.trace(s2) - 2 * shared
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-10)


def test_equal_sets_are_0_apart_and_shifted_ones_by_the_square_of_the_shift() -> None:
    features = np.random.default_rng(1).normal(0, 1, (400, 30)) @ np.random.default_rng(2).normal(0, 1, (30, 30))
    assert frechet_distance(moments(features), moments(features[::-1])) == pytest.approx(0, abs=1e-9)
    shift = np.linspace(-1, 1, 30)
    assert frechet_distance(moments(features), moments(features + shift)) == pytest.approx((shift**2).sum(), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_covariances_are_exact(scale: float) -> None:
    """Fewer features than dimensions; roots of rounding errors would add some 1e-6 times the covariance."""
    features = scale * np.random.default_rng(3).normal(1, 1, (9, 200))
    assert frechet_distance(moments(features), moments(features)) <= 1e-11 * scale**2
    # Along other axes nothing is shared: the traces are left.
    one, other = np.zeros((9, 200)), np.zeros((9, 200))
    one[:, :50], other[:, 100:] = features[:, :50], features[:, 100:]
    first, second = moments(one), moments(other)
    shift = ((first.mean() - second.mean()) ** 2).sum()
    expected = shift + np.trace(first.covariance()) + np.trace(second.covariance())
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_sets_without_any_spread() -> None:
    still = moments(np.full((5, 3), 2.0))
    assert frechet_distance(still, still) == 0
    assert frechet_distance(still, moments(np.full((4, 3), 5.0))) == pytest.approx(27)
    spread = exact(np.full(3, 2.0), np.diag([1.0, 2.0, 3.0]))
    assert frechet_distance(still, spread) == pytest.approx(14)


def test_too_few_features_are_said() -> None:
    with pytest.raises(ValueError, match="at least 2 features, found 1"):
        frechet_distance(moments(np.zeros((1, 3))), moments(np.zeros((5, 3))))
    with pytest.raises(ValueError, match="found none"):
        Moments(3).mean()
