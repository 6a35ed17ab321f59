"""Statistics over pictures, with 95 % confidence intervals from resampling the pictures (bootstrap)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_ROUNDS: Final = 1000
_TAIL: Final = 2.5  # %


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.2f}" if math.isnan(self.low) else f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def estimate(statistic: Callable[..., float], *columns: Any) -> Estimate:
    """Return a statistic of columns that have one value per picture.

    Args:
        statistic: takes arrays and returns a number; NaN where it is undefined.
        columns: of equal length.
    """
    arrays = [np.asarray(column, float) for column in columns]
    count = len(arrays[0])
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, count, count) for _ in range(_ROUNDS if count > 1 else 0))
    values = np.array([statistic(*(array[rows] for array in arrays)) for rows in drawn])
    defined = values[~np.isnan(values)]
    low, high = np.percentile(defined, (_TAIL, 100 - _TAIL)) if defined.size else (math.nan, math.nan)
    return Estimate(statistic(*arrays), float(low), float(high))


def geometric_mean(logarithms: NDArray[Any]) -> float:
    """Return the geometric mean of numbers from their logarithms."""
    return math.exp(float(logarithms.mean()))


def share(hits: NDArray[Any], among: NDArray[Any]) -> float:
    """Return the share of hits (0 or 1) among the rows where ``among`` is 1."""
    chosen = hits[among > 0]
    return float(chosen.mean()) if chosen.size else math.nan


def auc(scores: NDArray[Any], bad: NDArray[Any]) -> float:
    """Return the probability that a bad row scores lower than a good one; ties count half."""
    good, failed = scores[bad == 0], scores[bad > 0]
    if not good.size or not failed.size:
        return math.nan
    lower = np.sign(good[:, None] - failed[None, :])
    return float((lower.mean() + 1) / 2)
