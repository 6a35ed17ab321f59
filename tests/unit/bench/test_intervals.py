import math

import numpy as np
import pytest

from bench.intervals import auc, estimate, geometric_mean, share


def test_interval_contains_the_mean_and_shrinks_with_the_number_of_pictures() -> None:
    rng = np.random.default_rng(1)
    few, many = (estimate(geometric_mean, rng.normal(0, 0.5, count)) for count in (20, 2000))
    assert few.low < few.value < few.high
    assert many.low < 1 < many.high
    assert many.high - many.low < 0.3 * (few.high - few.low)
    assert many.high - many.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(2000), rel=0.15)


def test_auc_is_one_for_perfect_order_and_half_for_ties() -> None:
    bad = np.array([1, 1, 0, 0])
    assert auc(np.array([0.1, 0.2, 0.8, 0.9]), bad) == 1
    assert auc(np.array([0.9, 0.8, 0.2, 0.1]), bad) == 0
    assert auc(np.array([0.5, 0.5, 0.5, 0.5]), bad) == 0.5
    assert auc(np.array([0.1, 0.8, 0.8, 0.9]), bad) == 0.875


def test_statistics_are_undefined_without_pictures() -> None:
    assert str(estimate(geometric_mean, [])) == "-"
    assert math.isnan(share(np.array([1.0]), np.array([0.0])))
    assert math.isnan(auc(np.array([0.3]), np.array([1])))


def test_estimate_of_a_single_picture_has_no_interval() -> None:
    assert str(estimate(geometric_mean, [math.log(0.5)])) == "0.50"
