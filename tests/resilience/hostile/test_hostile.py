"""Decodes named hostile files and 20,000 damaged ones; ``make fuzz`` does it for any number and seed."""

import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.image.decode import decode
from tests.conftest import file_of
from tests.resilience.hostile import corpus, fuzz
from tests.resilience.hostile.fuzz import Bounds
from tests.resilience.hostile.mutations import Mutant

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")

HOSTILE = corpus.hostile()
APPROXIMATE = "The image is CMYK without a color profile: its colors are approximate."
SLOW = pytest.mark.slow
SLOW_SHARDS = 8
MAX_CPU_S = 30
"""CPU time of a file. Without its bound, each hostile construct takes minutes, or would in a larger file."""
FAST_DAMAGED, DAMAGED = range(200), range(20_000)


SLOW_NAMES = (
    "EXIF, 49 million orientations",
    "gif, a comment in single bytes",
    "gif, a flood of comments",
    "avif of 25 MP that says 48 x 48",
    "heic, a small overlay of 64 MP",
    "jpeg with 90 MB of comments",
    "jpeg, 100 MP of 10 scans of nothing",
    "jpeg, a flood of EXIF data",
    "jpeg, a flood of Photoshop's resources",
    "jpeg, a flood of fill bytes",
    "jpeg, a flood of segments",
    "png of 100 MP in 100 kB",
    "png of 16 x 6,000,000",
    "png, a flood of chunks",
    "png, a flood of empty pixels",
    "tiff, 12 million resolutions",
    "tiff, 24 million strips",
    "tiff, 24 million sub-IFDs",
    "tiff, 49 million bit depths",
    "tiff, deflated, of 1 GB in a strip",
    "webp, a flood of chunks",
)
"""Files of about 100 MB or 100 megapixels: each takes as long as all others together."""
FAST_NAMES = sorted(HOSTILE.keys() - set(SLOW_NAMES))


def shards(fast: Sequence[Any], slow: Sequence[Any]) -> list[Any]:
    """Return parameters: the fast part, and the slow one in shards that run side by side."""
    slow_parts = [slow[shard::SLOW_SHARDS] for shard in range(SLOW_SHARDS)]
    return [
        pytest.param(fast, id="fast"),
        *(pytest.param(part, id=f"slow {number}", marks=pytest.mark.slow) for number, part in enumerate(slow_parts)),
    ]


@pytest.mark.parametrize("names", shards(FAST_NAMES, SLOW_NAMES))
def test_a_hostile_file_ends_as_expected_within_its_bounds(names: Sequence[str]) -> None:
    outcomes = list(fuzz.examine(fuzz.named, names))
    assert [outcome for outcome in outcomes if outcome.wrong] == []
    assert [outcome for outcome in outcomes if outcome.cpu_s > MAX_CPU_S] == []
    expected = {name: ends.__name__ if (ends := HOSTILE[name].ends) else "picture" for name in names}
    assert {outcome.key: outcome.ended for outcome in outcomes} == expected


@pytest.mark.parametrize("name", sorted(corpus.seeds()))
def test_the_files_that_are_damaged_are_sound(name: str) -> None:
    assert decode(corpus.seeds()[name]).warnings in ((), (APPROXIMATE,))


@pytest.mark.parametrize("indices", shards(FAST_DAMAGED, DAMAGED[len(FAST_DAMAGED) :]))
def test_damaged_files_end_as_images_or_permanent_errors(indices: Sequence[int]) -> None:
    outcomes = list(fuzz.examine(partial(fuzz.mutated, 0), indices))
    assert len(outcomes) == len(indices)
    assert [outcome for outcome in outcomes if outcome.wrong] == []


class NoisyFile(bytes):
    """A file that writes to stderr while it is decoded."""

    def startswith(self, *arguments: Any) -> bool:
        os.write(sys.stderr.fileno(), b"damaged\n")
        return super().startswith(*arguments)


def trap(how: str) -> Mutant:
    """Return a file that breaks a bound. A crash or a hang happens while the file is made."""
    match how:
        case "crash":
            os.abort()
        case "hang":
            time.sleep(3600)
        case "flat webp":
            return Mutant(how, file_of(Image.new("RGB", (2000, 2000)), "WEBP"))
        case "noisy":
            return Mutant(how, NoisyFile(corpus.seeds()["png"]))
    return fuzz.named(how)


@pytest.mark.parametrize(
    ("how", "bounds", "ended", "wrong"),
    [
        ("crash", Bounds(), "died", "its process ended with -6"),
        pytest.param("hang", Bounds(guard_s=5), "hung", "nothing came for 5 s", marks=SLOW),
        pytest.param(
            "png, XMP of 200 MB",
            Bounds(memory_bytes=2_000_000),
            "picture",
            "it took [0-9]+ MB",
            marks=SLOW,
        ),
        pytest.param(
            "flat webp",
            Bounds(limit_bytes=20_000_000),
            "CorruptImageError",
            "it wants more than 20000000 bytes",
            marks=SLOW,
        ),
        pytest.param("noisy", Bounds(), "picture", "what is wrong with it was said on stderr only", marks=SLOW),
    ],
)
def test_a_broken_bound_is_found_and_the_other_files_are_still_examined(
    how: str, bounds: Bounds, ended: str, wrong: str
) -> None:
    before, trapped, after = fuzz.examine(trap, ["no bytes", how, "no bytes"], bounds)
    assert trapped.ended == ended
    assert re.fullmatch(wrong, trapped.wrong)
    assert [(outcome.ended, outcome.wrong) for outcome in (before, after)] == [("EmptyImageError", None)] * 2
