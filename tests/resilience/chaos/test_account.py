"""The account of a chaos run finds each deviation: a consistent inventory, and each way to break it."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.resilience.chaos.account import Expected, Injected, Picture, discrepancies
from tests.resilience.chaos.inventory import Execution, Found, Inventory, _execution, retaken
from tests.resilience.chaos.plan import FAULTS, FOREVER, GROUP_FAULTS, Report, plan

GOOD, BAD = "a" * 64, "b" * 64
CUT_OUT = Picture("c" * 64, (40, 32))
KILLED = Report(frozenset({"Refine"}), "Runtime.ExitError")
EXPECTED = [
    Expected("chaos/1.png", "v1", GOOD, CUT_OUT),
    Expected("chaos/2.png", "v2", GOOD, CUT_OUT),
    Expected("chaos/3.png", "v3", BAD, KILLED, "crash"),
]


def result(key: str = "chaos/1.png", version: str = "v1") -> Found:
    return Found(key, version, CUT_OUT.sha256, CUT_OUT.sha256, CUT_OUT.size)


def report(key: str = "chaos/3.png", version: str = "v3", **facts: Any) -> dict[str, Any]:
    defaults = {"stage": "Refine", "error": "Runtime.ExitError", "message": "It died", "remedy": "Give it more memory."}
    return {**defaults, **facts, "source": {"bucket": "uploads", "key": key, "version_id": version}}


def inventory() -> Inventory:
    """Two uploads of one content, one of them served from the cache, and one upload that failed."""
    return Inventory(
        results=[result(), result("chaos/2.png", "v2")],
        reports=[report()],
        executions=[
            Execution("arn:1", "SUCCEEDED", "chaos/1.png", "v1", GOOD, owned=1, segmented=1),
            Execution("arn:2", "SUCCEEDED", "chaos/2.png", "v2", GOOD, owned=0, segmented=0),
            Execution("arn:3", "FAILED", "chaos/3.png", "v3", BAD, owned=1, segmented=1),
        ],
        work=[f"work/{GOOD}/mask.png", f"cache/{GOOD}.png", f"work/{BAD}/mask.png"],
        lifecycle=["work/", "cache/"],
        masks=Counter({GOOD: 1, BAD: 1}),
        dead={"SegmentationDeadLetterQueue": [], "UploadsDeadLetterQueue": []},
    )


def rules(found: Inventory, injected: Injected | None = None) -> list[tuple[str, str]]:
    return [(wrong.rule, wrong.subject) for wrong in discrepancies(EXPECTED, found, injected or Injected())]


def test_a_consistent_account_has_no_discrepancy() -> None:
    assert rules(inventory()) == []


def test_a_lost_upload_is_found() -> None:
    found = inventory()
    del found.results[0]
    assert rules(found) == [("lost", "chaos/1.png")]


def test_an_upload_with_a_result_and_a_report_is_found() -> None:
    found = inventory()
    found.reports.append(report("chaos/1.png", "v1"))
    assert rules(found) == [("both", "chaos/1.png")]


def test_a_result_of_another_version_does_not_count() -> None:
    found = inventory()
    found.results[0] = result(version="v0")
    assert rules(found) == [("lost", "chaos/1.png"), ("unknown upload", "chaos/1.png")]


def test_a_wrong_result_is_found() -> None:
    for spoilt in (
        {"sha256": "d" * 64, "stated_sha256": "d" * 64},
        {"stated_sha256": "d" * 64},
        {"size": (32, 40)},
        {"size": None},
    ):
        found = inventory()
        found.results[0] = replace(found.results[0], **spoilt)
        assert rules(found) == [("wrong result", "chaos/1.png")], spoilt


def test_a_result_without_its_sidecar_is_found() -> None:
    found = inventory()
    found.strays.append("results/chaos/3.png.png")
    assert rules(found) == [("stray", "results/chaos/3.png.png")]


def test_an_unexplained_report_is_found() -> None:
    found = inventory()
    found.results.pop(0)
    found.reports.append(report("chaos/1.png", "v1"))
    assert rules(found) == [("outcome", "chaos/1.png")]


def test_a_report_of_another_stage_or_error_than_the_fault_is_found() -> None:
    for spoilt in ({"stage": "Encode"}, {"error": "States.Timeout"}, {"remedy": ""}, {"message": ""}):
        found = inventory()
        found.reports = [report(**spoilt)]
        assert rules(found) == [("unjustified report", "chaos/3.png")], spoilt


def test_a_result_in_spite_of_a_lasting_fault_is_found() -> None:
    found = inventory()
    found.reports = []
    found.results.append(result("chaos/3.png", "v3"))
    assert rules(found) == [("outcome", "chaos/3.png")]


def test_an_upload_without_an_execution_and_one_that_still_runs_are_found() -> None:
    found = inventory()
    found.executions[0] = replace(found.executions[0], status="RUNNING")
    del found.executions[1]
    assert rules(found) == [("execution", "chaos/1.png"), ("execution", "chaos/2.png")]


def test_a_leftover_claim_is_found() -> None:
    found = inventory()
    found.claims[BAD] = "arn:3"
    [wrong] = discrepancies(EXPECTED, found, Injected())
    assert (wrong.rule, wrong.subject, wrong.what) == ("claim", BAD, "left by arn:3, which is FAILED")


def test_objects_that_never_expire_or_are_unknown_are_found() -> None:
    found = inventory()
    found.work += [f"elsewhere/{GOOD}", f"work/{'e' * 64}/mask.png"]
    assert rules(found) == [("orphan", f"elsewhere/{GOOD}"), ("orphan", f"work/{'e' * 64}/mask.png")]


def test_work_claimed_twice_is_found_unless_the_first_owner_failed() -> None:
    found = inventory()
    found.masks[GOOD] = 2
    found.executions[1] = replace(found.executions[1], owned=1, segmented=1)
    assert rules(found) == [("paid twice", GOOD)]
    found.executions[1] = replace(found.executions[1], status="ABORTED")
    assert rules(found) == []


def test_an_extra_mask_is_found_unless_a_lost_answer_explains_it() -> None:
    found = inventory()
    found.masks[GOOD] = 2
    assert rules(found) == [("paid twice", GOOD)]
    assert rules(found, Injected(masks={GOOD: 1})) == []


def test_a_job_taken_again_from_a_killed_worker_explains_an_extra_mask() -> None:
    found = inventory()
    found.masks[GOOD] = 2
    found.retaken["1"] = 1
    assert rules(found) == []


def test_a_returned_job_counts_as_taken_again_only_if_its_worker_was_killed() -> None:
    taken, killed = ("1", "job received"), ("", "The container ended with signal: killed: it is started again")
    assert retaken([taken, killed, taken])["1"] == 1
    assert retaken([taken, killed, taken, taken])["1"] == 1
    assert retaken([killed, taken, taken])["1"] == 0


def test_work_claimed_or_done_twice_by_one_execution_is_found() -> None:
    for twice in ({"owned": 2}, {"segmented": 2}):
        found = inventory()
        found.executions[0] = replace(found.executions[0], **twice)
        assert rules(found) == [("paid twice", "chaos/1.png")], twice


def test_a_mask_without_a_claim_is_found() -> None:
    found = inventory()
    found.executions[0] = replace(found.executions[0], owned=0)
    assert rules(found) == [("paid twice", GOOD)]


class Histories:
    """Step Functions with the history of one execution: the output of each state that it left."""

    def __init__(self, *exited: tuple[str, dict[str, Any]]) -> None:
        self._events = [
            {"stateExitedEventDetails": {"name": name, "output": json.dumps(output)}} for name, output in exited
        ]

    def get_paginator(self, _call: str) -> "Histories":
        return self

    def paginate(self, **_which: Any) -> list[dict[str, Any]]:
        return [{"events": self._events}]


def test_an_execution_that_lost_a_race_can_claim_later() -> None:
    lost = {"cache_key": GOOD, "lost_race": {"Error": "DynamoDB.ConditionalCheckFailedException"}}
    for won in ("ClaimWork", "TakeOverClaim"):
        histories = Histories(("ClaimWork", lost), (won, {**lost, "claim": {"held": True}}))
        assert _execution(histories, "arn:1", "SUCCEEDED").owned == 1


def test_a_fault_that_never_occurred_is_found() -> None:
    [fault] = FAULTS["duplicate event"]
    assert rules(inventory(), Injected(never=[("chaos/1", fault)])) == [("fault did not occur", "chaos/1")]


def test_leftover_and_unexplained_messages_are_found() -> None:
    found = inventory()
    found.waiting = 1
    found.dead["UploadsDeadLetterQueue"].append("an event")
    assert rules(found) == [("dead letter", "UploadsDeadLetterQueue"), ("queue", "segmentation")]
    found = inventory()
    found.dead["SegmentationDeadLetterQueue"].append("rubbish")
    assert rules(found, Injected(rubbish=frozenset({"rubbish"}))) == []


def test_a_missing_dead_letter_is_found() -> None:
    assert rules(inventory(), Injected(rubbish=frozenset({"rubbish"}))) == [("dead letter", "segmentation")]


def test_a_plan_depends_on_its_seed_alone() -> None:
    assert plan(60, 0.5, 7) == plan(60, 0.5, 7)
    assert plan(60, 0.5, 7) != plan(60, 0.5, 8)


@pytest.mark.slow
def test_all_planned_faults_occur_unless_the_upload_ended_before() -> None:
    for number, seed in ((300, 7), (500, 1)):
        chaos = plan(number, 0.15, seed)
        others = {
            (upload.content.fault is not None, fault.where)
            for upload in chaos.uploads
            for subject, fault in upload.faults
            if (subject, fault) not in chaos.certain
        }
        assert others <= {(False, "nowhere"), (True, "result"), (True, "sidecar")}


@pytest.mark.slow
def test_a_plan_has_about_the_requested_share_of_faults_and_every_kind() -> None:
    injected = [upload.fault for upload in plan(2000, 0.15, 7).uploads if upload.fault]
    assert 0.13 < len(injected) / 2000 < 0.17
    kinds = {fault.kind for choices in FAULTS.values() for fault in choices}
    assert {fault.kind for fault in injected} == kinds


@pytest.mark.slow
def test_shared_contents_have_only_faults_that_do_not_depend_on_the_owner() -> None:
    uploads = plan(2000, 0.5, 7).uploads
    shared = {key for key, count in Counter(upload.content.cache_key for upload in uploads).items() if count > 1}
    for upload in uploads:
        if upload.fault and upload.content.cache_key in shared:
            assert not upload.fault.own_content
        if upload.fault and upload.fault.times == FOREVER and upload.fault.kind != "broken picture":
            assert upload.report or upload.fault.where in ("Metrics", "Encode"), upload.fault
    assert all(fault.by_content for fault in GROUP_FAULTS)
