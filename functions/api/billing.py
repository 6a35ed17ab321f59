"""How many credits a job costs. The monthly quota of a caller counts credits."""

import math
from collections.abc import Mapping
from typing import Any, Final

from core.types import Precision
from functions.api.problems import is_callers_fault
from functions.runtime.outcomes import DELETED

MEGAPIXELS_PER_CREDIT: Final = 25
"""At high precision, a credit pays for about 6 CPU seconds besides segmentation (make bench-speed)."""

_FACTOR: Final = {Precision.ULTRA_HIGH: 4}
"""At 12 megapixels, ultra_high takes 4.5 times the CPU time of high (make bench-speed)."""


def credits_for(precision: Precision, width: int = 1, height: int = 1) -> int:
    """Return the price of an image: 1 for each started 25 megapixels, and four times as much at ultra_high.

    Without a size, this is the lowest price, which is charged before the size is known.

    >>> credits_for(Precision.HIGH, 4000, 3000), credits_for(Precision.ULTRA_HIGH, 8000, 6000)
    (1, 8)
    """
    return math.ceil(width * height / (MEGAPIXELS_PER_CREDIT * 1e6)) * _FACTOR.get(precision, 1)


def credits_of_result(sidecar: Mapping[str, Any]) -> int:
    """Return the price of a result. It is the same if the result comes from the cache.

    A result on a canvas that is larger than the image costs as much as an image of its size.
    """
    precision = Precision(sidecar["options"].get("precision_level", Precision.HIGH))
    larger = max((sidecar["source"], sidecar["image"]), key=lambda one: one["width"] * one["height"])
    return credits_for(precision, larger["width"], larger["height"])


def is_free(report: Mapping[str, Any]) -> bool:
    """Return whether a failure costs nothing: the image was rejected before anything was computed, or we failed.

    Args:
        report: a failure report, or at least its ``error``, and ``stage`` if it is known.
    """
    if report["error"] == DELETED:  # the caller stopped the job
        return False
    return report.get("stage") == "Validate" or not is_callers_fault(report["error"])
