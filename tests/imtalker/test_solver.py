from __future__ import annotations

import pytest
import torch

from imtalker.generator.solver import euler


def test_one_point_returns_the_start_unevaluated() -> None:
    def velocity(t: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        raise AssertionError("evaluated")

    start = torch.randn(2, 3)
    assert torch.equal(euler(velocity, start, 1), start)


def test_evaluations_stand_at_the_left_of_each_step() -> None:
    times: list[float] = []

    def velocity(t: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        times.append(t.item())
        return torch.zeros_like(state)

    euler(velocity, torch.zeros(1, dtype=torch.float64), 10)
    assert times == pytest.approx([k / 9 for k in range(9)], abs=1e-15)


@pytest.mark.parametrize("points", [2, 5, 10])
def test_constant_velocity_is_exact(points: int) -> None:
    start, speed = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    torch.testing.assert_close(euler(lambda t, x: speed, start, points), start + speed)


@pytest.mark.parametrize("points", [2, 5, 10])
def test_growth_compounds_once_per_step(points: int) -> None:
    steps = points - 1
    end = euler(lambda t, x: x, torch.ones(1, dtype=torch.float64), points)
    assert end.item() == pytest.approx((1 + 1 / steps) ** steps, rel=1e-12)


@pytest.mark.parametrize("points", [2, 5, 10])
def test_velocity_that_depends_on_time_gives_the_left_sum(points: int) -> None:
    steps = points - 1
    end = euler(lambda t, x: t.expand_as(x), torch.zeros(1, dtype=torch.float64), points)
    assert end.item() == pytest.approx((steps - 1) / (2 * steps), rel=1e-12)


def test_error_halves_with_the_step() -> None:
    exact = torch.tensor(1.0, dtype=torch.float64).exp()
    errors = [abs(euler(lambda t, x: x, torch.ones((), dtype=torch.float64), n + 1) - exact) for n in (64, 128)]
    assert (errors[0] / errors[1]).item() == pytest.approx(2.0, rel=0.02)


def test_a_grid_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, found 0"):
        euler(lambda t, x: x, torch.zeros(1), 0)
