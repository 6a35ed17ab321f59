from typing import Any

from client.executions.pictures import MASKS_KEPT_DAYS, StagePicture, computed_by, missing, pictures_of
from functions.contracts.object_keys import second_attempt_keys
from tests.conftest import ROOT
from tests.fakes.stack_in_memory import Buckets, stack, uploaded

SOURCE = {
    "bucket": "uploads",
    "key": "a.jpg",
    "version_id": "v1",
    "format": "jpeg",
    "bytes": 9000,
    "width": 60,
    "height": 40,
}
OUTPUT = {
    "result": {"bucket": "results", "key": "results/a.jpg.png", "version_id": "r1"},
    "image": {"format": "png", "bytes": 12_345, "width": 60, "height": 40},
    "escalation": None,
}
MASK = {"key": "work/m", "width": 32, "height": 24, "model": "u2netp", "host": "lambda"}
ALPHA = {"key": "work/a", "quality": {"score": 0.5}}
ATTEMPT = {"segment": {"mask": MASK}, "refine": {"alpha": ALPHA}}
STATE: dict[str, Any] = {"source": SOURCE, "keys": {"mask": "work/m", "alpha": "work/a"}, "cache_key": "c", **ATTEMPT}


def listed(state: dict[str, Any], output: dict[str, Any] | None = None) -> list[tuple[str, str, str | None]]:
    found = pictures_of(stack(), uploaded("a.jpg", "v1"), state, output)
    return [(one.kind, one.key, one.attempt) for one in found]


def test_pictures_are_in_the_order_of_the_stages() -> None:
    source, mask, alpha, result = pictures_of(stack(), {}, STATE, OUTPUT)
    assert (source.kind, source.bucket, source.version_id, source.size) == ("source", "uploads", "v1", "60 x 40 px")
    assert (mask.bucket, mask.key, mask.size, mask.facts) == ("work", "work/m", "32 x 24 px", "u2netp on lambda")
    assert (alpha.key, alpha.size, alpha.facts) == ("work/a", "60 x 40 px", "quality 0.50")
    assert (result.version_id, result.facts) == ("r1", "png, 12 kB")


def test_an_upload_that_validation_rejected_has_its_source() -> None:
    assert listed({}) == [("source", "a.jpg", None)]
    assert pictures_of(stack(), "nonsense", {}, None) == []


def test_an_upload_that_validation_rejected_has_the_size_of_the_event() -> None:
    event = uploaded("a.jpg", "v1")
    event["detail"]["object"]["size"] = 20_400
    [source] = pictures_of(stack(), event, {}, None)
    assert source.facts == "20 kB"


def test_a_running_execution_has_the_pictures_so_far() -> None:
    assert listed({"source": SOURCE, "segment": {"mask": MASK}}) == [
        ("source", "a.jpg", None),
        ("mask", "work/m", None),
    ]


def test_both_attempts_are_shown() -> None:
    second = {"segment": {"mask": {**MASK, "key": "work/m2"}}, "refine": {"alpha": {**ALPHA, "key": "work/a2"}}}
    assert listed({**STATE, "first": ATTEMPT, **second})[1:] == [
        ("mask", "work/m", "first"),
        ("alpha", "work/a", "first"),
        ("mask", "work/m2", "second"),
        ("alpha", "work/a2", "second"),
    ]


def test_a_second_attempt_has_no_picture_before_its_mask() -> None:
    only_first = [("mask", "work/m", "first"), ("alpha", "work/a", "first")]
    assert listed({**STATE, "first": ATTEMPT})[1:] == only_first
    segmented = {**STATE, "first": ATTEMPT, "segment": {"mask": {**MASK, "key": "work/m2"}}}
    assert listed(segmented)[1:] == [*only_first, ("mask", "work/m2", "second")]


def test_a_cache_hit_shows_the_pictures_of_the_execution_that_computed_it() -> None:
    keys = {"mask": "work/c/m", "alpha": "work/c/a"}
    state = {"source": SOURCE, "keys": keys, "cache_key": "c", "hit": {}, "cache": {"Item": {"owner": {"S": "arn:x"}}}}
    assert listed(state, OUTPUT)[1:3] == [("mask", "work/c/m", None), ("alpha", "work/c/a", None)]
    kept_second = {**OUTPUT, "escalation": {"kept": "second"}}
    assert [key for _, key, _ in listed(state, kept_second)[1:3]] == list(second_attempt_keys("c"))
    assert computed_by(state) == "arn:x" and computed_by(STATE) is None


def test_objects_that_expired_are_missing() -> None:
    buckets = Buckets()
    buckets.newest = {"work/m": "v1"}
    there, gone = StagePicture("mask", "work", "work/m"), StagePicture("alpha", "work", "work/a")
    assert missing(stack(buckets=buckets), [there, gone]) == {gone}


def test_masks_are_kept_as_long_as_the_template_says() -> None:
    assert f"Prefix: work/, ExpirationInDays: {MASKS_KEPT_DAYS}}}" in (ROOT / "template.yaml").read_text()
