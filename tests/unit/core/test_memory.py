import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.measure import Case, Cost, Failure, measure
from core import pipeline
from core.arrays import Picture
from core.matting import refine
from core.options import Options
from core.types import ImageInfo, Precision

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"),
]

STACKS_BYTES = 8 * 2**20 * (os.cpu_count() or 1)
"""What the threads of a pool reserve and hardly use: the limit counts it, the peak does not."""


def cut_out(megapixels, precision):
    """Return the call that makes a PNG of a decoded picture and a mask."""
    width, height = round((megapixels * 1e6 * 4 / 3) ** 0.5), round((megapixels * 1e6 * 3 / 4) ** 0.5)
    mask = star()
    rgb = photograph(mask, width, height)
    picture = Picture(rgb, None, ImageInfo("jpeg", width, height, 0))

    def call():
        alpha = refine.refine(picture.rgb, mask, precision=precision).alpha
        pipeline.finish(picture, alpha, Options(precision_level=precision), None)

    return call


def hoard(size_bytes):
    """Return the call that makes a small cut-out, and then takes memory besides."""
    call = cut_out(1, Precision.STANDARD)
    return lambda: [call(), np.ones(size_bytes, np.uint8)]


def star():
    """Draw a subject of 1024 px with a fringe, so that a fifth of the picture is uncertain."""
    y, x = np.mgrid[-1:1:768j, -4 / 3 : 4 / 3 : 1024j].astype(np.float32)
    reach = 0.55 + 0.2 * np.sin(60 * np.arctan2(y, x))
    return np.clip(12 * (reach - np.hypot(x, y)) + 0.5, 0, 1).astype(np.float32)


def photograph(mask, width, height):
    """Enlarge the subject to a picture and add noise, in strips: no more memory than the picture's own."""
    subject = cv2.merge([(40 + plane * mask).astype(np.uint8) for plane in (160, 120, 80)])
    rgb = cv2.resize(subject, (width, height))
    grain = np.random.default_rng(1).integers(0, 16, (64, width, 3), np.uint8)
    for top in range(0, height, 64):
        strip = rgb[top : top + 64]
        cv2.add(strip, grain[: len(strip)], strip)
    return rgb


@pytest.mark.parametrize(
    ("megapixels", "precision", "limit_bytes"),
    [
        (24, Precision.DRAFT, 1_000_000_000),
        (24, Precision.STANDARD, 1_000_000_000),
        (24, Precision.HIGH, 1_000_000_000),
        (100, Precision.HIGH, 2_500_000_000),
    ],
)
def test_memory_above_the_decoded_picture(megapixels, precision, limit_bytes):
    job = Case(cut_out, (megapixels, precision), rounds=1, memory_limit_bytes=limit_bytes + STACKS_BYTES)
    outcome = measure({"": job})[""]
    assert isinstance(outcome, Cost), outcome
    peak_mb, wall_s, cpu_s = round(outcome.peak_bytes / 1e6), round(outcome.wall_s, 1), round(outcome.cpu_s, 1)
    print(f"{megapixels} MP, {precision}: {peak_mb} MB, {wall_s} s, {cpu_s} s of CPU")
    assert outcome.peak_bytes < limit_bytes


def test_a_cut_out_that_passes_its_limit_fails():
    limit_bytes = 1_000_000_000
    outcome = measure({"": Case(hoard, (limit_bytes,), rounds=1, memory_limit_bytes=limit_bytes)})[""]
    assert isinstance(outcome, Failure)
    assert "Unable to allocate" in outcome.reason
