"""Timeouts that compose: nothing outlives what waits for it, computed from the template and the state machine.

docs/explanation/reliability.md says what a worst case is.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from botocore.config import Config as SdkConfig

from client.history import LONGEST_S
from functions.api.services import SDK_TIMEOUTS
from functions.runtime.config import SDK
from functions.segment.ecs.worker import WorkerConfig
from functions.webhook.message import ANSWER_S
from tests.conftest import ROOT
from tests.state_machine import ANSWERABLE, DEFINITION, DELIVERY, STATES, STATES_OF_BOTH, TASKS, TASKS_OF_BOTH, waits_s

LAMBDA_START_S = 10
"""What Lambda gives a process to start, which its Timeout does not count."""

ENDPOINT_S = 60
"""What SageMaker gives a real-time endpoint to answer."""

MOST_EVENTS = 25_000
"""What Step Functions keeps of an execution's history; one event more fails it."""

BEFORE_WORK = {
    "Lambda.TooManyRequestsException",
    "Lambda.CodeArtifactUserPendingException",
    "Lambda.ResourceConflictException",
    "S3.S3Exception",
    "S3.SdkClientException",
    "SQS.AmazonSQSException",
    "SQS.SdkClientException",
}
"""Refusals that come before the work begins, or before a token is handed on: of the attempt they cost nothing."""


class _Template(yaml.SafeLoader):
    """CloudFormation's short forms, as their bare arguments."""


_Template.add_multi_constructor("!", lambda loader, _suffix, node: _argument(loader, node))


def _argument(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_scalar(node)


RESOURCES = yaml.load((ROOT / "template.yaml").read_text(), _Template)["Resources"]
FUNCTION_OF = {
    name: match[1]
    for name, task in TASKS_OF_BOTH.items()
    if (match := re.fullmatch(r"\$\{(\w+)Arn\}", str(task["Parameters"].get("FunctionName"))))
}
FUNCTIONS = [name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::Serverless::Function"]
TOKENS = [name for name, task in TASKS.items() if task["Resource"].endswith("waitForTaskToken")]


def worst_case_s(name: str) -> float:
    """The longest that a state can take, retries and all."""
    state = STATES_OF_BOTH[name]
    if branches := state.get("Branches"):
        return max(sum(map(worst_case_s, branch["States"])) for branch in branches)
    retriers = state.get("Retry", [])
    attempts = sum(r["MaxAttempts"] for r in retriers if not set(r["ErrorEquals"]) <= BEFORE_WORK)
    return (1 + attempts) * state.get("TimeoutSeconds", 0) + sum(sum(waits_s(r)) for r in retriers)


Place = tuple[str, bool]
"""A state, and whether the second attempt is being made."""


def ways(place: Place) -> Iterator[Place]:
    """Where it goes on from a state. Of waiting for an owner there is none."""
    name, second = place
    state = STATES_OF_BOTH[name]
    for way in [state, *state.get("Choices", []), *state.get("Catch", [])]:
        for following in {way.get("Next"), way.get("Default")} - {None, "WaitedBefore?"}:
            if following != "Escalate":
                yield following, second
            elif not second:
                yield following, True


def longest_s(place: Place, known: dict[Place, float]) -> float:
    """The longest that an execution can take from a state on."""
    if place not in known:
        known[place] = worst_case_s(place[0]) + max((longest_s(way, known) for way in ways(place)), default=0)
    return known[place]


@pytest.mark.parametrize("name", FUNCTION_OF)
def test_a_state_outlives_the_function_that_it_waits_for_and_that_function_s_start(name: str) -> None:
    function = RESOURCES[FUNCTION_OF[name]]["Properties"]
    assert function["Timeout"] + LAMBDA_START_S <= TASKS_OF_BOTH[name]["TimeoutSeconds"]


def call_s(sdk: SdkConfig = SDK) -> float:
    """The longest that a call of the SDK can take."""
    attempts = sdk.retries["total_max_attempts"]
    waits = [2.0**attempt for attempt in range(attempts - 1)]
    return float(attempts * (sdk.connect_timeout + sdk.read_timeout) + sum(waits))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_outlives_the_sdk_s_own_attempts_at_a_call_that_nobody_answers(name: str) -> None:
    assert call_s(SDK_TIMEOUTS if name == "ApiFunction" else SDK) < RESOURCES[name]["Properties"]["Timeout"]


def test_a_state_outlives_the_endpoint_that_it_waits_for() -> None:
    assert TASKS["SegmentOnSageMaker"]["TimeoutSeconds"] > ENDPOINT_S


def test_no_token_outlives_the_request_that_it_is_found_by() -> None:
    request = TASKS["InvokeEndpoint"]["Parameters"]["RequestTTLSeconds"]
    assert request >= TASKS["AwaitMask"]["TimeoutSeconds"]


def test_no_token_outlives_the_message_that_it_lies_in() -> None:
    retention = RESOURCES["SegmentationQueue"]["Properties"]["MessageRetentionPeriod"]
    assert retention > TASKS["SegmentOnEcs"]["TimeoutSeconds"]


def test_a_job_comes_back_from_a_dead_worker_before_its_heartbeat_is_missed() -> None:
    config = WorkerConfig.model_fields
    assert 2 * config["pbr_heartbeat_s"].default < config["pbr_visibility_s"].default
    assert 2 * config["pbr_visibility_s"].default < TASKS["SegmentOnEcs"]["HeartbeatSeconds"]


@pytest.mark.parametrize("name", TOKENS)
def test_a_heartbeat_is_missed_before_its_task_is_given_up(name: str) -> None:
    assert TASKS[name]["HeartbeatSeconds"] < TASKS[name]["TimeoutSeconds"]


@pytest.mark.parametrize("name", [name for name in STATES if ANSWERABLE[name] == name])
def test_no_state_outlives_the_execution(name: str) -> None:
    assert worst_case_s(name) < DEFINITION["TimeoutSeconds"]


@pytest.mark.parametrize("definition", [DEFINITION, DELIVERY], ids=["job", "delivery"])
def test_no_path_outlives_the_execution(definition: dict[str, Any]) -> None:
    assert longest_s((definition["StartAt"], False), {}) < definition["TimeoutSeconds"]


def test_a_webhook_is_posted_and_its_secret_read_within_the_function_s_time() -> None:
    assert call_s() + ANSWER_S < RESOURCES["WebhookFunction"]["Properties"]["Timeout"]


def test_a_client_follows_an_execution_to_its_end() -> None:
    assert DEFINITION["TimeoutSeconds"] <= LONGEST_S


# ---- History


def most_events(name: str) -> int:
    """How many events a state writes at most: entered and exited, and three for each attempt of a task."""
    state = STATES[name]
    inside = sum(most_events(inner) for branch in state.get("Branches", []) for inner in branch["States"])
    attempts = 1 + sum(r["MaxAttempts"] for r in state.get("Retry", [])) if state["Type"] == "Task" else 0
    return 2 + inside + 3 * attempts


def events_of_a_turn(name: str, met: tuple[str, ...] = ()) -> int:
    """How many events an execution writes at most from a state until it waits for an owner again."""
    if name == "WaitForOwner" and met:
        return 0
    ways = [STATES[name], *STATES[name].get("Choices", []), *STATES[name].get("Catch", [])]
    following = {way.get(key) for way in ways for key in ("Next", "Default")} - {None, *met[1:]}
    turns = [events_of_a_turn(way, (*met, name)) for way in following if returns(way)]
    return most_events(name) + max(turns)


def returns(name: str) -> bool:
    """Whether an execution can come from a state to wait for an owner."""
    found, todo = {name}, [name]
    while todo:
        state = STATES[todo.pop()]
        for way in [state, *state.get("Choices", []), *state.get("Catch", [])]:
            new = {way.get("Next"), way.get("Default")} - {None} - found
            found, todo = found | new, [*todo, *new]
    return "WaitForOwner" in found


def test_who_waits_for_an_owner_until_the_execution_s_end_has_room_in_the_history() -> None:
    wait_s = STATES["SetInitialWait"]["Result"]["seconds"]
    turns = waited_s = 0
    while waited_s + wait_s <= DEFINITION["TimeoutSeconds"]:
        waited_s, turns, wait_s = waited_s + wait_s, turns + 1, wait_s + 1
    once = 2 * sum(most_events(name) for name in STATES if ANSWERABLE[name] == name)
    assert turns * events_of_a_turn("WaitForOwner") + once < MOST_EVENTS


def test_who_waits_for_seconds_is_served_within_seconds() -> None:
    waits = [STATES["SetInitialWait"]["Result"]["seconds"] + turn for turn in range(4)]
    assert max(waits) <= 5
    assert STATES["IncreaseWait"]["Parameters"] == {"seconds.$": "States.MathAdd($.wait.seconds, 1)"}
