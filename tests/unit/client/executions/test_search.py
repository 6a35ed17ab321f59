import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from client.executions.search import FAILED, Descriptions, Filter, Search, console_url
from client.history import ExecutionSummary, of_described
from client.stack import Stack
from tests.fakes.stack_in_memory import MACHINE, NOW, Buckets, Executions, stack, uploaded

SIDECAR = {
    "cache": {"hit": False},
    "quality": {"score": 0.9, "review": False},
    "degraded": False,
    "escalation": None,
}


def output(**facts: Any) -> str:
    return json.dumps({**SIDECAR, **facts})


def many(count: int, *, failed: int = 0) -> Executions:
    """Return executions of which every ``failed``-th failed; the newest is n0."""
    executions = Executions()
    for number in range(count):
        fails = failed and number % failed == 0
        facts: dict[str, Any] = {"status": "FAILED", "error": "CorruptImageError"} if fails else {}
        facts = facts or {"status": "SUCCEEDED", "output": output()}
        stopped = NOW - timedelta(seconds=number - 0.5)
        executions.add(f"n{number}", uploaded(f"{number}.jpg", "1"), after_s=-number, stopDate=stopped, **facts)
    return executions


def search(executions: Executions, buckets: Buckets | None = None, **wanted: Any) -> Search:
    deployed = stack(executions, buckets)
    return Search(deployed, Filter(**wanted), Descriptions(deployed))


def names(found: list[ExecutionSummary]) -> list[str]:
    return [one.name for one in found]


def test_executions_are_summarized() -> None:
    executions = Executions()
    executions.add("running", uploaded("a.jpg", "1"))
    hit = output(cache={"hit": True}, quality={"score": 0.2, "review": True})
    stopped = NOW + timedelta(seconds=3.5)
    executions.add("done", uploaded("b.jpg", "1"), after_s=1, status="SUCCEEDED", stopDate=stopped, output=hit)
    executions.add("refused", {"source": "s3://b/c.jpg"}, after_s=-1, status="FAILED", error="InvalidRequestError")
    found = search(executions)
    found.find(10)
    done, running, refused = found.page(1, 10)
    assert (done.name, done.source_key, done.seconds, done.score) == ("done", "b.jpg", 2.5, 0.2)
    assert done.marks == ("review", "cached")
    assert (running.status, running.seconds, running.cache_hit, running.marks) == ("RUNNING", None, None, ())
    assert (refused.source_key, refused.error) == (None, "InvalidRequestError")


@pytest.mark.parametrize(
    ("facts", "degraded"),
    [
        ({}, False),
        ({"degraded": True}, True),
        ({"escalation": {"error": {"stage": "Refine", "error": "E"}}}, True),
        ({"escalation": {"error": None}}, False),
    ],
)
def test_a_fallback_and_a_failed_second_attempt_are_degraded(facts: dict[str, Any], degraded: bool) -> None:
    executions = Executions()
    arn = executions.add("a", {}, status="SUCCEEDED", output=output(**facts))
    assert of_described(executions.known[arn]).degraded is degraded


def test_a_page_describes_its_own_executions_once() -> None:
    executions = many(300)
    found = search(executions)
    found.find(200)
    assert not executions.described, "the list suffices to find them"
    assert names(found.page(2, 25)) == [f"n{number}" for number in range(25, 50)]
    found.page(2, 25)
    assert len(executions.described) == 25


def test_a_redriven_execution_is_described_again() -> None:
    executions = Executions()
    arn = executions.add("a", uploaded("a.jpg", "1"), status="FAILED", error="E", stopDate=NOW)
    deployed = stack(executions)
    descriptions = Descriptions(deployed)
    assert descriptions.of([executions.known[arn]])[0].error == "E"
    executions.known[arn] |= {"status": "SUCCEEDED", "error": None, "stopDate": NOW + timedelta(seconds=9)}
    assert descriptions.of([executions.known[arn]])[0].status == "SUCCEEDED"


def test_failed_executions_of_three_statuses_are_in_one_order() -> None:
    executions = Executions()
    for number, status in enumerate(("ABORTED", "SUCCEEDED", "FAILED", "RUNNING", "TIMED_OUT", "FAILED")):
        executions.add(f"n{number}", {}, after_s=-number, status=status, stopDate=NOW)
    found = search(executions, statuses=FAILED)
    found.find(10)
    assert names(found.page(1, 10)) == ["n0", "n2", "n4", "n5"] and found.complete


def test_executions_are_found_by_error_key_and_name() -> None:
    executions = many(100, failed=10)
    for wanted, expected in (
        ({"error": "corrupt"}, [f"n{number}" for number in range(0, 100, 10)]),
        ({"text": "97.JPG"}, ["n97"]),
        ({"text": "n98"}, ["n98"]),
        ({"error": "corrupt", "text": "7"}, ["n70"]),
        ({"error": "corrupt", "statuses": ("SUCCEEDED",)}, []),
    ):
        found = search(executions, **wanted)
        found.find(1000)
        assert found.complete and names(found.page(1, 100)) == expected


def test_executions_are_found_by_quality() -> None:
    executions = many(20)
    executions.add("review", {}, status="SUCCEEDED", output=output(quality={"score": 0.1, "review": True}))
    executions.add("hit", {}, after_s=-50, status="SUCCEEDED", output=output(cache={"hit": True}))
    for quality, expected in (("review", ["review"]), ("cached", ["hit"]), ("degraded", [])):
        found = search(executions, quality=quality)
        found.find(5)
        assert names(found.page(1, 5)) == expected


def test_executions_are_found_by_start_time() -> None:
    executions = many(100)
    found = search(executions, since=NOW - timedelta(seconds=12), until=NOW - timedelta(seconds=10))
    found.find(50)
    assert names(found.page(1, 50)) == ["n10", "n11", "n12"] and found.complete


def test_a_search_stops_after_200_descriptions_until_it_is_continued() -> None:
    executions = many(1000)
    executions.add("last", uploaded("needle.jpg", "1"), after_s=-2000, status="FAILED", error="E", stopDate=NOW)
    found = search(executions, text="needle")
    found.find(25)
    assert (found.found, found.scanned, found.complete) == (0, 200, False)
    assert found.reached == NOW - timedelta(seconds=199)
    for _ in range(5):
        found.find(25)
    assert names(found.page(1, 25)) == ["last"] and found.complete


@pytest.mark.parametrize("key", ["failed/deep/a.jpg.json", "results/deep/a.jpg.png.json"])
def test_the_whole_key_of_an_upload_finds_its_execution_without_a_scan(key: str) -> None:
    executions, buckets = many(1000), Buckets()
    arn = executions.add("old", uploaded("deep/a.jpg", "1"), after_s=-9000, status="FAILED", error="E", stopDate=NOW)
    document = {"execution": {"id": arn}, "source": {"bucket": "uploads", "key": "deep/a.jpg"}}
    buckets.objects["results", key] = json.dumps(document).encode()
    found = search(executions, buckets, text="deep/a.jpg")
    assert names(found.page(1, 25)) == ["old"] and found.scanned == 0
    for _ in range(7):
        found.find(25)
    assert found.complete and found.found == 1, "the scan does not find it a second time"


def test_documents_of_bulk_runs_are_no_executions_of_the_machine() -> None:
    executions, buckets = many(3), Buckets()
    arn = executions.add("run", {}, machine=f"{MACHINE}-bulk")
    document = {"execution": {"id": arn}, "source": {"key": "a.jpg"}}
    buckets.objects["results", "results/a.jpg.png.json"] = json.dumps(document).encode()
    assert search(executions, buckets, text="a.jpg").found == 0


def test_an_execution_that_is_deleted_meanwhile_is_listed_without_details() -> None:
    executions = many(2)
    found = search(executions)
    found.find(2)
    listed = dict(executions.known)
    executions.known.clear()
    assert [one.source_key for one in found.page(1, 2)] == [None, None] and len(listed) == 2


@pytest.mark.parametrize(
    ("partition", "host"),
    [
        ("aws", "console.aws.amazon.com"),
        ("aws-us-gov", "console.amazonaws-us-gov.com"),
        ("aws-cn", "console.amazonaws.cn"),
    ],
)
def test_the_console_is_that_of_the_partition(partition: str, host: str) -> None:
    arn = f"arn:{partition}:states:eu-west-1:1:execution:pbr:a"
    expected = f"https://{host}/states/home?region=eu-west-1#/v2/executions/details/{arn}"
    assert console_url(stack(), arn) == expected


def test_an_embedded_cloud_has_no_console() -> None:
    local: Stack = replace(stack(), endpoint_url="http://localhost:1")
    assert console_url(local, "arn:aws:states:eu-west-1:1:execution:pbr:a") is None


def test_no_text_finds_a_key_that_the_reader_may_not_see() -> None:
    executions = Executions()
    executions.add("a", uploaded("web/1f3a/cup.jpg", "1"))
    executions.add("b", uploaded("photos/cup.jpg", "1"))

    def found_by(text: str) -> list[str]:
        found = search(executions, text=text, may_see=lambda key: not key.startswith("web/"))
        found.find(10)
        return names(found.page(1, 10))

    assert found_by("cup") == ["b"]
    assert found_by("web/1f3a/cup.jpg") == []
    assert set(found_by("")) == {"a", "b"}


class Throttled(Executions):
    """Step Functions, which rejects the first call of ListExecutions."""

    def get_paginator(self, operation: str) -> Any:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, operation)


def test_a_search_that_failed_is_not_complete() -> None:
    found = search(Throttled())
    for _ in range(2):
        with pytest.raises(ClientError):
            found.find(10)
    assert not found.complete
