"""Spread and outliers of values that are known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.columns import Column
from pipeline.report.distribution import deviations, distribution

PLAIN, HIGHER, LOWER = Column("m", "quality"), Column("ssim", "quality"), Column("jitter", "quality")


def test_deviations_of_a_normal_sample_are_its_standard_deviations() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 20_000)
    assert deviations(values, PLAIN) == pytest.approx((values - 5.0) / 2.0, rel=0.05, abs=0.05)


def test_every_value_is_counted_in_a_bin_or_beyond() -> None:
    values = np.concatenate([np.random.default_rng(1).normal(0, 1, 500), [40.0, -50.0, np.nan, np.inf]])
    spread = distribution(PLAIN, values)
    assert (spread.count, spread.not_finite) == (502, 1)
    assert spread.counts.sum() + spread.below + spread.above == 502
    assert (spread.below >= 1, spread.above >= 1) == (True, True)
    # Far values don't widen the bins.
    assert spread.edges[0] > -10
    assert spread.edges[-1] < 10
    assert (spread.shown[0].value, spread.shown[-1].value) == (-50.0, 40.0)
    assert (spread.shown[0].row, spread.shown[-1].row) == (501, 500)


@pytest.mark.parametrize(("column", "expected"), [(PLAIN, [-50.0, 50.0]), (HIGHER, [-50.0]), (LOWER, [50.0])])
def test_only_the_bad_side_of_a_column_with_a_direction_has_outliers(column: Column, expected: list[float]) -> None:
    values = np.concatenate([np.linspace(-1, 1, 50), [50.0, -50.0]])
    assert [one.value for one in distribution(column, values).shown] == expected


def test_one_value_among_equal_ones_is_an_outlier_and_equal_ones_are_none() -> None:
    assert distribution(PLAIN, np.array([1.0] * 30 + [2.0])).outliers == 1
    assert distribution(PLAIN, np.array([0.1 + 0.2] * 10 + [0.3] * 5)).outliers == 0
    assert distribution(PLAIN, np.full(30, 7.0)).constant


def test_few_values_have_no_outliers() -> None:
    assert distribution(PLAIN, np.array([1.0, 1.1, 0.9, 1.0, 500.0])).outliers == 0


def test_whole_numbers_have_bins_of_whole_numbers() -> None:
    spread = distribution(PLAIN, np.array([1, 1, 2, 3, 3, 3, 2, 1, 2], dtype=float))
    assert spread.edges.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert spread.counts.tolist() == [3, 3, 3]
