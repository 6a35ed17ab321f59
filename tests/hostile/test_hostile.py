"""Each named hostile file, and twenty thousand damaged ones; ``make fuzz`` does the same for any number and seed."""

import os
from functools import partial
from pathlib import Path

import pytest

from core.decode import decode
from tests.hostile import corpus, fuzz

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


def die(how):
    """A file that is not damaged but deadly: what it does to its process happens while it is made."""
    if how == "crash":
        os.abort()
    return fuzz.named("no bytes")


def test_a_file_that_kills_its_process_is_named_and_the_others_go_on():
    outcomes = list(fuzz.examine(die, ["sound", "crash", "sound too"]))
    assert [(outcome.key, outcome.ended) for outcome in outcomes] == [
        ("sound", "EmptyImageError"),
        ("crash", "died"),
        ("sound too", "EmptyImageError"),
    ]
