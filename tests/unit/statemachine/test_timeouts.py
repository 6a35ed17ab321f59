"""Timeouts are consistent: every caller waits longer than its callee. Computed from the template and the state machine.

docs/explanation/reliability.md defines the worst case.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.history import LONGEST_S
from functions.api.services import SDK_TIMEOUTS
from functions.runtime.config import SDK
from functions.segment.ecs.worker import WorkerConfig
from functions.webhook.message import ANSWER_S
from tests.conftest import ROOT
from tests.state_machine import ANSWERABLE, DEFINITION, DELIVERY, STATES, STATES_OF_BOTH, TASKS, TASKS_OF_BOTH, waits_s

LAMBDA_START_S = 10
"""Lambda's init phase, which does not count toward the function's Timeout."""

ENDPOINT_S = 60
"""Response timeout of a real-time endpoint."""

MOST_EVENTS = 25_000
"""Maximum number of events per execution in Step Functions."""

BEFORE_WORK = {
    "Lambda.TooManyRequestsException",
    "Lambda.CodeArtifactUserPendingException",
    "Lambda.ResourceConflictException",
    "S3.S3Exception",
    "S3.SdkClientException",
    "SQS.AmazonSQSException",
    "SQS.SdkClientException",
}
"""Errors that occur before the work starts, so that the attempt takes no time."""


class _Template(yaml.SafeLoader):
    """Loads CloudFormation short forms as their arguments."""


_Template.add_multi_constructor("!", lambda loader, _suffix, node: _argument(loader, node))


def _argument(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


def load(path: Path) -> dict[str, Any]:
    """Return the resources of a template."""
    resources: dict[str, Any] = yaml.load(path.read_text(), _Template)["Resources"]
    return resources


RESOURCES = load(ROOT / "template.yaml")
FUNCTION_OF = {
    name: match[1]
    for name, task in TASKS_OF_BOTH.items()
    if (match := re.fullmatch(r"\$\{(\w+)Arn\}", str(task["Parameters"].get("FunctionName"))))
}
FUNCTIONS = [name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::Serverless::Function"]
TOKENS = [name for name, task in TASKS.items() if task["Resource"].endswith("waitForTaskToken")]


def worst_case_s(name: str) -> float:
    """Return the longest duration of a state including retries, in seconds."""
    state = STATES_OF_BOTH[name]
    if branches := state.get("Branches"):
        return max(sum(map(worst_case_s, branch["States"])) for branch in branches)
    retriers = state.get("Retry", [])
    attempts = sum(r["MaxAttempts"] for r in retriers if not set(r["ErrorEquals"]) <= BEFORE_WORK)
    return float((1 + attempts) * state.get("TimeoutSeconds", 0) + sum(sum(waits_s(r)) for r in retriers))


Place = tuple[str, bool]
"""A state, and whether it is in the second attempt."""


def ways(place: Place) -> Iterator[Place]:
    """Yield the states that can follow, except waiting for an owner."""
    name, second = place
    state = STATES_OF_BOTH[name]
    for way in [state, *state.get("Choices", []), *state.get("Catch", [])]:
        for following in {way.get("Next"), way.get("Default")} - {None, "WaitedBefore?"}:
            if following != "Escalate":
                yield following, second
            elif not second:
                yield following, True


def longest_s(place: Place, known: dict[Place, float]) -> float:
    """Return the longest duration of an execution from a state on, in seconds."""
    if place not in known:
        known[place] = worst_case_s(place[0]) + max((longest_s(way, known) for way in ways(place)), default=0)
    return known[place]


@pytest.mark.parametrize("name", FUNCTION_OF)
def test_a_state_waits_for_the_function_and_its_start(name: str) -> None:
    function = RESOURCES[FUNCTION_OF[name]]["Properties"]
    assert function["Timeout"] + LAMBDA_START_S <= TASKS_OF_BOTH[name]["TimeoutSeconds"]


def call_s(sdk: Any = SDK) -> float:
    """Return the longest duration of an SDK call including retries, in seconds."""
    attempts = sdk.retries["total_max_attempts"]
    waits = [2.0**attempt for attempt in range(attempts - 1)]
    return float(attempts * (sdk.connect_timeout + sdk.read_timeout) + sum(waits))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_waits_for_all_sdk_retries_of_an_unanswered_call(name: str) -> None:
    assert call_s(SDK_TIMEOUTS if name == "ApiFunction" else SDK) < RESOURCES[name]["Properties"]["Timeout"]


def test_a_state_waits_for_the_endpoint() -> None:
    assert TASKS["SegmentOnSageMaker"]["TimeoutSeconds"] > ENDPOINT_S


def test_no_token_outlives_its_endpoint_request() -> None:
    request = TASKS["InvokeEndpoint"]["Parameters"]["RequestTTLSeconds"]
    assert request >= TASKS["AwaitMask"]["TimeoutSeconds"]


def test_no_token_outlives_its_message() -> None:
    retention = RESOURCES["SegmentationQueue"]["Properties"]["MessageRetentionPeriod"]
    assert retention > TASKS["SegmentOnEcs"]["TimeoutSeconds"]


def test_a_request_is_redelivered_before_the_heartbeat_timeout() -> None:
    config = WorkerConfig.model_fields
    assert 2 * config["pbr_heartbeat_s"].default < config["pbr_visibility_s"].default
    assert 2 * config["pbr_visibility_s"].default < TASKS["SegmentOnEcs"]["HeartbeatSeconds"]


@pytest.mark.parametrize("name", TOKENS)
def test_the_heartbeat_timeout_is_shorter_than_the_task_timeout(name: str) -> None:
    assert TASKS[name]["HeartbeatSeconds"] < TASKS[name]["TimeoutSeconds"]


@pytest.mark.parametrize("name", [name for name in STATES if ANSWERABLE[name] == name])
def test_no_state_outlives_the_execution(name: str) -> None:
    assert worst_case_s(name) < DEFINITION["TimeoutSeconds"]


@pytest.mark.parametrize("definition", [DEFINITION, DELIVERY], ids=["job", "delivery"])
def test_no_path_outlives_the_execution(definition: dict[str, Any]) -> None:
    assert longest_s((definition["StartAt"], False), {}) < definition["TimeoutSeconds"]


def test_reading_the_secret_and_sending_a_webhook_fit_into_the_function_timeout() -> None:
    assert call_s() + ANSWER_S < RESOURCES["WebhookFunction"]["Properties"]["Timeout"]


def test_a_client_waits_for_the_longest_execution() -> None:
    assert DEFINITION["TimeoutSeconds"] <= LONGEST_S


# ---- History


def most_events(name: str) -> int:
    """Return the maximum number of history events of a state: two, and three per task attempt."""
    state = STATES[name]
    inside = sum(most_events(inner) for branch in state.get("Branches", []) for inner in branch["States"])
    attempts = 1 + sum(r["MaxAttempts"] for r in state.get("Retry", [])) if state["Type"] == "Task" else 0
    return 2 + inside + 3 * attempts


def events_of_a_turn(name: str, met: tuple[str, ...] = ()) -> int:
    """Return the maximum number of history events from a state until the next wait for an owner."""
    if name == "WaitForOwner" and met:
        return 0
    ways = [STATES[name], *STATES[name].get("Choices", []), *STATES[name].get("Catch", [])]
    following = {way.get(key) for way in ways for key in ("Next", "Default")} - {None, *met[1:]}
    turns = [events_of_a_turn(way, (*met, name)) for way in following if returns(way)]
    return most_events(name) + max(turns)


def returns(name: str) -> bool:
    """Return whether WaitForOwner can be reached from a state."""
    found, todo = {name}, [name]
    while todo:
        state = STATES[todo.pop()]
        for way in [state, *state.get("Choices", []), *state.get("Catch", [])]:
            new = {way.get("Next"), way.get("Default")} - {None} - found
            found, todo = found | new, [*todo, *new]
    return "WaitForOwner" in found


def test_waiting_for_an_owner_fits_into_the_history() -> None:
    wait_s = STATES["SetInitialWait"]["Result"]["seconds"]
    turns = waited_s = 0
    while waited_s + wait_s <= DEFINITION["TimeoutSeconds"]:
        waited_s, turns, wait_s = waited_s + wait_s, turns + 1, wait_s + 1
    once = 2 * sum(most_events(name) for name in STATES if ANSWERABLE[name] == name)
    assert turns * events_of_a_turn("WaitForOwner") + once < MOST_EVENTS


def test_a_short_wait_ends_within_seconds() -> None:
    waits = [STATES["SetInitialWait"]["Result"]["seconds"] + turn for turn in range(4)]
    assert max(waits) <= 5
    assert STATES["IncreaseWait"]["Parameters"] == {"seconds.$": "States.MathAdd($.wait.seconds, 1)"}
