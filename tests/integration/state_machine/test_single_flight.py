"""One execution works on an image at a time, even if owners fail while others wait for them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import disc, file_of
from tests.integration.deployment import Deployed, Ended, until

OTHERS = 4


@pytest.fixture(autouse=True, scope="module")
def no_workers(stack: Deployed) -> Iterator[None]:
    """Stop the workers, so that a job for ECS waits until its test answers."""
    with stack.no_workers():
        yield


def waiting_owner(stack: Deployed, key: str, data: bytes) -> tuple[str, str]:
    """Upload a picture that is claimed and waits for a worker; return its execution and the task token."""
    execution = stack.execution_of(key, stack.upload(key, data, {"pbr-segmentation-host": "ecs"}))
    return execution, stack.receive_token()


def waiting_executions(stack: Deployed, folder: str, data: bytes, count: int = OTHERS) -> list[str]:
    """Upload the picture some more times; return the executions once each has met the claim."""
    keys = [f"{folder}/{number}.png" for number in range(count)]
    executions = [stack.execution_of(key, stack.upload(key, data)) for key in keys]
    until(lambda: all("WaitForOwner" in stack.states_of(execution) for execution in executions))
    return executions


def one_worked_for_all(stack: Deployed, folder: str, ended: list[Ended]) -> None:
    """Check that all have the same result, and that one execution made it."""
    assert {each.status for each in ended} == {"SUCCEEDED"}, [each.cause for each in ended]
    assert sum("SegmentOnLambda" in each.states for each in ended) == 1
    assert sorted(each.output["cache"]["hit"] for each in ended) == [False] + [True] * (len(ended) - 1)
    assert len({stack.result(f"results/{folder}/{number}.png.png") for number in range(len(ended))}) == 1
    [item] = [item for item in stack.cached() if item["cache_key"]["S"] == ended[0].output["cache"]["key"]]
    assert item["status"] == {"S": "DONE"}


@pytest.mark.slow
def test_one_waiting_execution_takes_over_from_an_owner_that_is_stopped(stack: Deployed) -> None:
    data = disc(seed=200)
    owner, _ = waiting_owner(stack, "stopped/owner.png", data)
    others = waiting_executions(stack, "stopped", data)
    stack.sfn.stop_execution(executionArn=owner)
    one_worked_for_all(stack, "stopped", [stack.wait(execution) for execution in others])
    until(lambda: stack.is_reported("stopped/owner.png"))


@pytest.mark.slow
def test_one_waiting_execution_takes_over_from_an_owner_whose_function_always_crashes(stack: Deployed) -> None:
    data = disc(seed=201)
    stack.crashes.of.add(("SegmentFunction", "crashed/owner.png"))
    owner = stack.execution_of("crashed/owner.png", stack.upload("crashed/owner.png", data))
    until(lambda: "SegmentOnLambda" in stack.states_of(owner))
    keys = [f"crashed/{number}.png" for number in range(OTHERS)]
    others = [stack.execution_of(key, stack.upload(key, data)) for key in keys]
    ended = stack.wait(owner)
    assert (ended.status, ended.error) == ("FAILED", "Runtime.ExitError")
    assert sum(event["type"] == "TaskFailed" for event in ended.events) == 3, "the first attempt and two more"
    assert stack.report("crashed/owner.png")["stage"] == "SegmentOnLambda"
    one_worked_for_all(stack, "crashed", [stack.wait(execution) for execution in others])


@pytest.mark.slow
def test_each_waiting_execution_tries_a_bad_image_itself_and_fails_with_a_report(stack: Deployed) -> None:
    data = file_of(Image.fromarray(np.full((90, 90, 3), 255, np.uint8)), "PNG")
    before = len(stack.cached())
    owner, token = waiting_owner(stack, "blank/owner.png", data)
    others = waiting_executions(stack, "blank", data, 3)
    stack.sfn.send_task_failure(taskToken=token, error="UnknownForegroundError", cause="no subject")
    for execution in (owner, *others):
        ended = stack.wait(execution)
        assert (ended.status, ended.error) == ("FAILED", "UnknownForegroundError")
        assert "ReleaseClaim" in ended.states
    for name in ("owner", *range(3)):
        assert stack.report(f"blank/{name}.png")["error"] == "UnknownForegroundError"
    assert len(stack.cached()) == before


@pytest.mark.slow
def test_the_claim_of_an_execution_without_history_is_taken_over(stack: Deployed) -> None:
    data = disc(seed=202)
    first = stack.process("forgotten/1.png", data)
    claim(stack, first.output["cache"]["key"], first.output["execution"]["id"] + "-of-old")
    after = stack.process("forgotten/2.png", data)
    assert after.status == "SUCCEEDED", after.cause
    assert after.states[3:6] == ["CacheHit?", "CheckOwner", "TakeOverClaim"]


def claim(stack: Deployed, cache_key: str, owner: str) -> None:
    """Replace a cached result with an execution's claim."""
    key: dict[str, Any] = {"cache_key": {"S": cache_key}}
    item = {**key, "status": {"S": "IN_PROGRESS"}, "owner": {"S": owner}}
    stack.dynamodb.put_item(TableName=stack.outputs["CacheTable"], Item=item)


@pytest.mark.slow
def test_one_execution_replaces_an_expired_cached_copy_for_all(stack: Deployed) -> None:
    data = disc(seed=203)
    cache_key = stack.process("expired-for-all/first.png", data).output["cache"]["key"]
    stack.s3.delete_object(Bucket=stack.outputs["WorkBucket"], Key=f"cache/{cache_key}.png")

    def process(number: int) -> Ended:
        return stack.process(f"expired-for-all/{number}.png", data)

    with ThreadPoolExecutor(OTHERS) as pool:
        one_worked_for_all(stack, "expired-for-all", list(pool.map(process, range(OTHERS))))


def test_two_versions_uploaded_at_the_same_instant_are_segmented_once(stack: Deployed) -> None:
    data = disc(seed=204)
    with ThreadPoolExecutor(2) as pool:
        versions = list(pool.map(lambda _: stack.upload("twins.png", data), range(2)))
    ended = [stack.wait(stack.execution_of("twins.png", version)) for version in versions]
    assert {each.status for each in ended} == {"SUCCEEDED"}
    assert sum("SegmentOnLambda" in each.states for each in ended) == 1
    assert {each.output["source"]["version_id"] for each in ended} == set(versions)
    assert not stack.is_reported("twins.png")
