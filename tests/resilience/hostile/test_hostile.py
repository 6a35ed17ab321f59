"""Each named hostile file, and twenty thousand damaged ones; ``make fuzz`` does the same for any number and seed."""

import os
import re
import sys
import time
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
FILES, SHARDS = 20_000, 8
APPROXIMATE = "The picture is CMYK without a colour profile: its colours are approximate."


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_hostile_file_ends_as_it_should_within_its_bounds(shard):
    names = sorted(HOSTILE)[shard::SHARDS]
    outcomes = list(fuzz.examine(fuzz.named, names))
    assert [outcome for outcome in outcomes if outcome.wrong] == []
    expected = {name: HOSTILE[name].ends.__name__ if HOSTILE[name].ends else "picture" for name in names}
    assert {outcome.key: outcome.ended for outcome in outcomes} == expected


@pytest.mark.parametrize("name", sorted(corpus.seeds()))
def test_the_seeds_of_all_damage_are_sound(name):
    assert decode(corpus.seeds()[name]).warnings in ((), (APPROXIMATE,))


@pytest.mark.parametrize("shard", range(SHARDS))
def test_damaged_files_end_as_pictures_or_permanent_errors(shard):
    outcomes = list(fuzz.examine(partial(fuzz.mutated, 0), range(shard, FILES, SHARDS)))
    assert len(outcomes) == FILES // SHARDS
    assert [outcome for outcome in outcomes if outcome.wrong] == []


class Told(bytes):
    """A file of which stderr is told something while it is decoded."""

    def startswith(self, *arguments: Any) -> bool:
        os.write(sys.stderr.fileno(), b"damaged\n")
        return super().startswith(*arguments)


def trap(how: str) -> Mutant:
    """A file that is no damage but a trap; what ends or holds up its process happens while it is made."""
    match how:
        case "crash":
            os.abort()
        case "hang":
            time.sleep(3600)
        case "flat webp":
            return Mutant(how, file_of(Image.new("RGB", (2000, 2000)), "WEBP"))
        case "told":
            return Mutant(how, Told(corpus.seeds()["png"]))
    return fuzz.named(how)


@pytest.mark.parametrize(
    ("how", "bounds", "ended", "wrong"),
    [
        ("crash", Bounds(), "died", "its process ended with -6"),
        ("hang", Bounds(guard_s=5), "hung", "nothing came for 5 s"),
        ("png, 100 zTXt of 1 MB each", Bounds(memory_bytes=10_000_000), "CorruptImageError", "it took [67]. MB"),
        ("flat webp", Bounds(limit_bytes=20_000_000), "CorruptImageError", "it wants more than 20000000 bytes"),
        ("told", Bounds(), "picture", "what is wrong with it was said on stderr only"),
    ],
)
def test_what_is_wrong_with_a_file_is_found_and_the_others_go_on(how, bounds, ended, wrong):
    before, trapped, after = fuzz.examine(trap, ["no bytes", how, "no bytes"], bounds)
    assert trapped.ended == ended
    assert re.fullmatch(wrong, trapped.wrong)
    assert [(outcome.ended, outcome.wrong) for outcome in (before, after)] == [("EmptyImageError", None)] * 2
