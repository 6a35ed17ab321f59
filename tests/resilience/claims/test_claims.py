"""Model-checks the claim protocol: up to five executions step through the state machine's own states, in any order.

Reads and writes of the cache table are the definition's, and DynamoDB, as the embedded cloud has it, carries them out.
S3 and Step Functions are a set of copies and a list of executions; a stage is one step that succeeds or fails.
"""

import copy
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from moto import mock_aws

from embedded_cloud import moto_patches
from tests.state_machine import DEFINITION

States = dict[str, Any]

WHO = st.integers(0, 7)
STEPS = st.sampled_from((0, 1, 1, 2, 4))
PASSED_BY = ("SegmentOnLambda", "Encode", "SaveSidecar", "RecordFailure", "PublishMetrics")
"""States without a step: other executions cannot see whether one is there or at the next state."""

CLAIMS = ("ClaimWork", "TakeOverClaim")

FAIR_ROUNDS = 60
"""More rounds than five executions need, one after the other."""


class RefusedError(Exception):
    """A task failed with this error name."""


class Table:
    """The cache table, one item at a time. An answer depends only on the request and the item, so it is remembered."""

    def __init__(self, dynamodb: Any) -> None:
        self._dynamodb, self._answers = dynamodb, dict[str, Any]()
        dynamodb.create_table(
            TableName="cache",
            KeySchema=[{"AttributeName": "cache_key", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "cache_key", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )

    def ask(self, item: Any, action: str, parameters: dict[str, Any]) -> tuple[dict[str, Any] | RefusedError, Any]:
        """Return the answer to a request on ``item``, and the item afterwards; None stands for no item."""
        request = json.dumps([item, action, parameters])
        if request not in self._answers:
            parameters["TableName"] = "cache"
            where = {"TableName": "cache", "Key": parameters["Key"]}
            self._dynamodb.delete_item(**where)
            if item:
                self._dynamodb.put_item(TableName="cache", Item=item)
            answer: dict[str, Any] | RefusedError
            try:
                answer = getattr(self._dynamodb, xform_name(action))(**parameters)
            except ClientError as error:
                answer = RefusedError(f"DynamoDB.{error.response['Error']['Code']}")
            self._answers[request] = answer, self._dynamodb.get_item(**where).get("Item")
        return self._answers[request]


@dataclass(eq=False)
class Execution:
    """An execution: its current state and that state's input."""

    arn: str
    at: str
    data: dict[str, Any]
    status: str = "RUNNING"
    saved: bool = False
    died: bool = False
    redriven: bool = False
    namesake: bool = False
    expired: bool = False
    races_lost: int = 0
    """Since its last wait."""

    @property
    def key(self) -> str:
        return self.data["cache_key"]


def value_at(path: str, data: Any, context: Any) -> Any:
    """Evaluate a path or States.JsonToString of a path."""
    if path.startswith("States.JsonToString("):
        return json.dumps(value_at(path.removeprefix("States.JsonToString(").removesuffix(")"), data, context))
    data, path = (context, path[3:]) if path.startswith("$$.") else (data, path[2:])
    for name in path.split(".") if path else ():
        data = data[name]
    return data


def fill_in(template: Any, data: Any, context: Any) -> Any:
    """Return Parameters or a ResultSelector with their paths replaced by values."""
    if not isinstance(template, dict):
        return template
    return {
        name.removesuffix(".$"): value_at(value, data, context)
        if name.endswith(".$")
        else fill_in(value, data, context)
        for name, value in template.items()
    }


def data_of(picture: str) -> dict[str, Any]:
    """Return the output of Validate."""
    return {"cache_key": picture, "cache_expires_at": "1", "host": "lambda", "escalation": None}


def holds(choice: dict[str, Any], data: Any) -> bool:
    """Evaluate one rule of a Choice state."""
    if "And" in choice:
        return all(holds(part, data) for part in choice["And"])
    try:
        value = value_at(choice["Variable"], data, {})
    except KeyError:
        return choice.get("IsPresent") is False
    [(operator, operand)] = [(name, operand) for name, operand in choice.items() if name not in ("Variable", "Next")]
    match operator:
        case "IsPresent":
            return bool(operand)
        case "IsNull":
            return (value is None) == operand
        case "StringEquals" | "BooleanEquals":
            return bool(value == operand)
    raise NotImplementedError(operator)


def between_claim_and_save(states: States) -> set[str]:
    """Return the states between the claim and the save."""
    found: set[str] = set()
    ahead = [states["ClaimWork"]["Next"]]
    while ahead:
        name = ahead.pop()
        if name in found or name == "RecordFailure":
            continue
        found.add(name)
        if name != "SaveCache":
            state = states[name]
            ways = [state, *state.get("Choices", []), *state.get("Catch", [])]
            ahead += [way[to] for way in ways for to in ("Next", "Default") if to in way]
    return found


class Claims(RuleBasedStateMachine):
    """Executions, the events that may happen to them, and the invariants."""

    states: States = DEFINITION["States"]
    table: Table

    def __init__(self) -> None:
        super().__init__()
        self.executions: list[Execution] = []
        self.forgotten: set[str] = set()
        self.copies: set[str] = set()
        self.items: dict[str, Any] = {}
        self.working = between_claim_and_save(self.states)

    # ---- events; the execution takes some steps before or after

    @precondition(lambda self: len(self._running) < 5 and len(self.executions) < 8)
    @rule(picture=st.sampled_from("aab"), steps=STEPS)
    def start(self, picture: str, steps: int) -> None:
        arn = f"execution-{len(self.executions)}"
        self.executions.append(Execution(arn, self.states["Validate"]["Next"], data_of(picture)))
        self._go_on(self.executions[-1], steps)

    @precondition(lambda self: self._running)
    @rule(who=WHO, steps=STEPS)
    def go_on(self, who: int, steps: int) -> None:
        self._go_on(self._pick(self._running, who), steps)

    @precondition(lambda self: self._at_work)
    @rule(who=WHO, steps=STEPS)
    def find_no_subject(self, who: int, steps: int) -> None:
        execution = self._pick(self._at_work, who)
        self._catch(execution, "UnknownForegroundError")
        self._go_on(execution, steps)

    @precondition(lambda self: self._running)
    @rule(who=WHO, steps=STEPS, arrives=st.booleans(), last=st.booleans())
    def lose_an_answer(self, who: int, steps: int, arrives: bool, last: bool) -> None:
        """A call has no answer, whether it arrived or not; it is made again, unless it was the ``last`` attempt.

        Executions at a claim are preferred: by chance alone it would take hundreds of examples to find one there.
        """
        claiming = [execution for execution in self._running if execution.at in CLAIMS]
        execution = self._go_on(self._pick(claiming or self._running, who), steps, until=CLAIMS)
        if execution in self._running:
            self._call_without_answer(execution, arrives)
            if last:
                self._catch(execution, self.states[execution.at]["Retry"][0]["ErrorEquals"][0])

    @precondition(lambda self: self._running)
    @rule(who=WHO, steps=STEPS, arrives=st.booleans(), status=st.sampled_from(("FAILED", "TIMED_OUT", "ABORTED")))
    def die(self, who: int, steps: int, arrives: bool, status: str) -> None:
        """The execution ends in its current state; its pending call arrives or not."""
        execution = self._go_on(self._pick(self._running, who), steps)
        if execution in self._running:
            self._call_without_answer(execution, arrives)
            execution.status, execution.died = status, True

    @precondition(lambda self: self._redrivable)
    @rule(who=WHO, steps=STEPS)
    def redrive(self, who: int, steps: int) -> None:
        execution = self._pick(self._redrivable, who)
        execution.status, execution.redriven = "RUNNING", True
        self._go_on(execution, steps)

    @precondition(lambda self: self.forgotten)
    @rule(who=WHO, steps=STEPS)
    def start_again(self, who: int, steps: int) -> None:
        """Start an execution with the name of one whose history has expired."""
        before = self._pick([execution for execution in self.executions if execution.arn in self.forgotten], who)
        self.forgotten.remove(before.arn)
        self.executions.remove(before)
        again = Execution(before.arn, self.states["Validate"]["Next"], data_of(before.key), namesake=True)
        self.executions.append(again)
        self._go_on(again, steps)

    @precondition(lambda self: any(execution.died for execution in self.executions))
    @rule(who=WHO)
    def reconcile(self, who: int) -> None:
        """ReconcileFunction releases the claim, as ReleaseClaim does it; it may come after a redrive."""
        execution = self._pick([execution for execution in self.executions if execution.died], who)
        with suppress(RefusedError):
            self._call_dynamodb(execution, self.states["ReleaseClaim"])

    @precondition(lambda self: self.executions)
    @rule(who=WHO, what=st.sampled_from(("copy", "item", "history")))
    def expire(self, who: int, what: str) -> None:
        """Expire a cached copy (S3 lifecycle), an item (DynamoDB TTL) or a history (90 days) at any time."""
        execution = self._pick(self.executions, who)
        if what == "copy":
            self.copies.discard(execution.key)
        elif what == "history" and execution.status != "RUNNING":
            self.forgotten.add(execution.arn)
        elif what == "item" and (item := self.items.pop(execution.key, None)):
            for owner in self.executions:
                owner.expired |= owner.arn == item["owner"]["S"]

    def teardown(self) -> None:
        """All running executions end if they continue, and so does a new one."""
        self._run_on()
        for key in {execution.key for execution in self.executions}:
            self.start(key, 0)
            self._run_on()
            assert self.executions[-1].at == "Done", "no claim outlives its owner"

    def _run_on(self) -> None:
        for _ in range(FAIR_ROUNDS):
            for execution in self._running:
                self._step(execution)
        assert not self._running, "executions wait forever"

    # ---- steps

    @property
    def _running(self) -> list[Execution]:
        return [execution for execution in self.executions if execution.status == "RUNNING"]

    @property
    def _at_work(self) -> list[Execution]:
        return [execution for execution in self._running if execution.at in self.working]

    @property
    def _ended(self) -> list[Execution]:
        return [execution for execution in self.executions if execution.status != "RUNNING"]

    @property
    def _redrivable(self) -> list[Execution]:
        return [e for e in self._ended if self.states[e.at]["Type"] == "Task" and e.arn not in self.forgotten]

    @staticmethod
    def _pick(executions: list[Execution], who: int) -> Execution:
        return executions[who % len(executions)]

    def _go_on(self, execution: Execution, steps: int, until: Collection[str] = ()) -> Execution:
        while execution.status == "RUNNING" and execution.at not in until and (steps or execution.at in PASSED_BY):
            steps -= execution.at not in PASSED_BY
            self._step(execution)
        return execution

    def _call_without_answer(self, execution: Execution, arrives: bool) -> None:
        if arrives:
            with suppress(RefusedError):
                self._perform(execution)

    def _step(self, execution: Execution) -> None:
        """Perform a task and continue to the next one."""
        state = self.states[execution.at]
        try:
            result = self._perform(execution)
        except RefusedError as error:
            self._catch(execution, str(error))
        else:
            execution.data = {**execution.data, state["ResultPath"][2:]: result}
            self._enter(execution, state["Next"])

    def _catch(self, execution: Execution, error: str) -> None:
        catcher = next(c for c in self.states[execution.at]["Catch"] if {error, "States.ALL"} & set(c["ErrorEquals"]))
        place, _, below = catcher["ResultPath"][2:].partition(".")
        execution.data = {**execution.data, place: {below: error}}
        if execution.at == "ClaimWork" and catcher["Next"] != "RecordFailure":
            execution.races_lost += 1
            assert execution.races_lost < 2, "claims without a wait"
        self._enter(execution, catcher["Next"])

    def _enter(self, execution: Execution, name: str) -> None:
        """Go through the states without a task, up to the next task or the end."""
        while (state := self.states[name])["Type"] in ("Choice", "Pass", "Wait"):
            if state["Type"] == "Choice":
                fitting = [choice["Next"] for choice in state["Choices"] if holds(choice, execution.data)]
                name = [*fitting, state["Default"]][0]
            else:
                execution.races_lost *= state["Type"] != "Wait"
                execution.data = {**execution.data, state.get("ResultPath", "$.waited")[2:]: {}}
                name = state["Next"]
        execution.at = name
        if state["Type"] != "Task":
            execution.status = {"Succeed": "SUCCEEDED", "Fail": "FAILED"}[state["Type"]]
        self._check_who_works()

    def _perform(self, execution: Execution) -> dict[str, Any]:
        """Perform the task, and return the value for its ResultPath.

        Raises:
            RefusedError: the task fails.
        """
        state, context = self.states[execution.at], {"Execution": {"Id": execution.arn}}
        *_, service, action = state["Resource"].split(":")
        match service, action:
            case "dynamodb", _:
                answer = self._call_dynamodb(execution, state)
                return fill_in(state.get("ResultSelector", answer), answer, {})
            case "sfn", "describeExecution":
                owner = fill_in(state["Parameters"], execution.data, context)["ExecutionArn"]
                assert owner != execution.arn, "the execution waits for itself"
                if owner in self.forgotten:
                    raise RefusedError("Sfn.ExecutionDoesNotExistException")
                described = {"Status": next(e.status for e in self.executions if e.arn == owner)}
                return fill_in(state["ResultSelector"], described, {})
            case "s3", "copyObject":
                if execution.key not in self.copies:
                    raise RefusedError("S3.NoSuchKeyException")
                served = json.loads(execution.data["cache"]["Item"]["document"]["S"])
                assert served["of"] == execution.key, "the result of another picture is served"
        if execution.at == "Encode":
            self.copies.add(execution.key)
        return {"document": {"of": execution.key}}

    def _call_dynamodb(self, execution: Execution, state: dict[str, Any]) -> dict[str, Any]:
        action = state["Resource"].rpartition(":")[2]
        parameters = fill_in(state["Parameters"], execution.data, {"Execution": {"Id": execution.arn}})
        before = self.items.get(execution.key)
        answer, after = self.table.ask(before, action, parameters)
        if after != before:
            self._check_write(execution, before, after)
        self.items[execution.key] = after
        if isinstance(answer, RefusedError):
            raise answer
        return answer

    # ---- invariants

    def _check_write(self, execution: Execution, before: Any, after: Any) -> None:
        """Only the owner of an item, or an execution that found it missing or unchanged, writes it."""
        mine = {"status": {"S": "IN_PROGRESS"}, "owner": {"S": execution.arn}}
        if before and before.items() >= mine.items():
            execution.saved = bool(after and after["status"] == {"S": "DONE"})
            return
        assert after and after.items() >= mine.items(), "an item of another owner was completed or deleted"
        assert before is None or before == execution.data["cache"]["Item"], "taken over from another owner"

    def _check_who_works(self) -> None:
        """A working execution has the claim, except a redriven one, a namesake, and one whose claim the TTL deleted."""
        for execution in self._at_work:
            if not (execution.saved or execution.redriven or execution.namesake or execution.expired):
                item = self.items.get(execution.key)
                assert item, "the execution works without a claim"
                assert (item["status"]["S"], item["owner"]["S"]) == ("IN_PROGRESS", execution.arn), "two work at once"


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    moto_patches.apply()
    with mock_aws():
        Claims.table = Table(
            boto3.client("dynamodb", "eu-west-1", aws_access_key_id="local", aws_secret_access_key="local")
        )
        yield


SEARCH = settings(
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=500,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
"""As many examples as are enough to detect each broken protocol."""


@pytest.mark.parametrize("examples", [50, pytest.param(SEARCH.max_examples, marks=pytest.mark.slow)])
def test_one_execution_works_at_a_time_none_waits_forever_and_results_stay(examples: int) -> None:
    run_state_machine_as_test(Claims, settings=settings(SEARCH, max_examples=examples))


def drop(state: str, condition: str) -> Callable[[States], None]:
    """Return a change that removes a part of a write's condition, and the attribute values that only it names."""

    def change(states: States) -> None:
        parameters = states[state]["Parameters"]
        whole = parameters.pop("ConditionExpression")
        assert condition in whole
        if rest := whole.replace(condition, ""):
            parameters["ConditionExpression"] = rest
        said = json.dumps([parameters.get(name) for name in ("UpdateExpression", "ConditionExpression")])
        for names in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
            parameters[names] = {name: value for name, value in parameters[names].items() if name in said}

    return change


def claim_at_once(states: States) -> None:
    """Claim again without a wait when there is no item."""
    states["CacheHit?"]["Choices"][0]["Next"] = "ClaimWork"


def lead(state: str, to: str) -> Callable[[States], None]:
    """Return a change that makes a Choice state always lead to ``to``."""

    def change(states: States) -> None:
        states[state] = {"Type": "Choice", "Choices": [], "Default": to}

    return change


BROKEN = {
    "a claim is made over another's": drop(
        "ClaimWork", "attribute_not_exists(cache_key) OR (#owner = :me AND #status = :in_progress)"
    ),
    "a claim whose answer was lost has no owner": drop("ClaimWork", " OR (#owner = :me AND #status = :in_progress)"),
    "a finished item is claimed by its owner's successor": drop("ClaimWork", " AND #status = :in_progress"),
    "a claim is repeated without a wait": claim_at_once,
    "a released claim is waited for": lead("ClaimAgain?", "LookUpCache"),
    "all that noticed take over": drop("TakeOverClaim", "(#owner = :previous AND #status = :found) OR #owner = :me"),
    "a result saved meanwhile is taken over": drop("TakeOverClaim", " AND #status = :found"),
    "a take-over whose answer was lost has no owner": drop("TakeOverClaim", " OR #owner = :me"),
    "a former owner saves": drop("SaveCache", "#owner = :me"),
    "a former owner releases": drop("ReleaseClaim", "#owner = :me AND "),
    "an owner at work is not waited for": lead("OwnerRunning?", "TakeOverClaim"),
    "an owner that ended is waited for": lead("OwnerRunning?", "WaitForOwner"),
    "items are ignored": lead("CacheHit?", "ClaimWork"),
    "a claim is served": lead("CacheHit?", "ServeCached"),
}


FAST = ("a claim is made over another's", "all that noticed take over", "a former owner saves")


@pytest.mark.parametrize("how", [pytest.param(how, marks=() if how in FAST else pytest.mark.slow) for how in BROKEN])
def test_a_broken_protocol_is_detected(how: str) -> None:
    states = copy.deepcopy(Claims.states)
    BROKEN[how](states)

    class Broken(Claims):
        pass

    Broken.states = states
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(Broken, settings=SEARCH)
