"""The Step Functions API: executions, histories, redrives and mocked test cases."""

import json
import time

import pytest
from botocore.exceptions import ClientError
from moto.stepfunctions.parser.backend.execution import Execution

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import (
    Machines,
    client,
    invoke,
    receive_token,
    task,
    until,
    wait_for_token,
)

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


def test_executions_without_a_name_get_unique_names(machines: Machines) -> None:
    machine = machines.create({"Pass": {"Type": "Pass", "End": True}})
    assert machines.start(machine) != machines.start(machine)


def test_a_listed_execution_has_a_status(
    cloud: EmbeddedCloud, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, seen, start = machines.create({"Pass": {"Type": "Pass", "End": True}}), [], Execution.start

    def look_and_start(execution: Execution) -> None:
        [listed] = client(cloud, "stepfunctions").list_executions(stateMachineArn=machine)["executions"]
        seen.append(listed["status"])
        start(execution)

    monkeypatch.setattr(Execution, "start", look_and_start)
    machines.start(machine)
    assert seen == ["RUNNING"]


def test_a_test_case_of_the_mock_configuration_runs(cloud: EmbeddedCloud, machines: Machines) -> None:
    retry = [{"ErrorEquals": ["Lambda.ServiceException"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    machine = machines.create({"Ask": invoke(cloud.outputs["Raise"], Retry=retry)}, name="mocked")
    mocked = machines.end(machines.start(f"{machine}#SecondTry"))
    assert json.loads(mocked["output"])["Payload"] == {"mocked": True}
    assert machines.end(machines.start(machine))["error"] == "NoSubjectError"


def test_a_mock_can_throw_states_errors(cloud: EmbeddedCloud, machines: Machines) -> None:
    retry = [{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    machine = machines.create({"Ask": invoke(cloud.outputs["Raise"], Retry=retry)}, name="mocked-slow")
    mocked = machines.end(machines.start(f"{machine}#SecondTry"))
    assert json.loads(mocked["output"])["Payload"] == {"mocked": True}


def test_an_error_mocked_at_dynamodb_keeps_its_name(cloud: EmbeddedCloud, machines: Machines) -> None:
    get = task("dynamodb:getItem", {"TableName": cloud.outputs["Table"], "Key": {"id": {"S": "any"}}})
    machine = machines.create({"Get": get}, name="mocked-table")
    assert machines.end(machines.start(f"{machine}#Throttled"))["error"] == "DynamoDB.ThrottlingException"


def test_an_attempt_without_a_mock_runs_for_real(cloud: EmbeddedCloud, machines: Machines) -> None:
    retry = [{"ErrorEquals": ["Lambda.ServiceException"], "IntervalSeconds": 1, "MaxAttempts": 3}]
    machine = machines.create({"Ask": invoke(cloud.outputs["Echo"], {"real": True}, Retry=retry)}, "mocked-once")
    result = machines.end(machines.start(f"{machine}#RealSecondTry"))
    assert json.loads(result["output"])["Payload"]["event"] == {"real": True}


@pytest.mark.parametrize("error", ["States.Timeout", "NoSubjectError"])
def test_a_fail_state_accepts_any_error_name(machines: Machines, error: str) -> None:
    assert machines.run({"Failed": {"Type": "Fail", "ErrorPath": "$.error"}}, {"error": error})["error"] == error


def test_a_missing_path_is_not_reported_as_a_dynamodb_error(machines: Machines) -> None:
    key = {"TableName": "any", "Key": {"key": {"S.$": "$.missing"}}}
    assert machines.run({"Get": task("dynamodb:getItem", key)})["error"] == "States.Runtime"


def test_the_history_is_paged_and_reversible(machines: Machines) -> None:
    execution = machines.start(machines.create({"Pass": {"Type": "Pass", "End": True}}))
    machines.end(execution)
    page = machines.api.get_execution_history(executionArn=execution, maxResults=2, reverseOrder=True)
    assert [event["type"] for event in page["events"]] == ["ExecutionSucceeded", "PassStateExited"]
    rest = machines.api.get_execution_history(executionArn=execution, reverseOrder=True, nextToken=page["nextToken"])
    assert [event["type"] for event in rest["events"]] == ["PassStateEntered", "ExecutionStarted"]


def test_a_timed_out_execution_has_a_stop_date(machines: Machines) -> None:
    machine = machines.create({"Wait": {"Type": "Wait", "Seconds": 30, "End": True}}, TimeoutSeconds=1)
    result = machines.end(machines.start(machine))
    assert result["status"] == "TIMED_OUT"
    assert result["stopDate"] > result["startDate"]
    [listed] = machines.api.list_executions(stateMachineArn=machine, statusFilter="TIMED_OUT")["executions"]
    assert listed["stopDate"] == result["stopDate"]


def test_a_timed_out_execution_ends_its_history_during_a_task(cloud: EmbeddedCloud, machines: Machines) -> None:
    wait = wait_for_token(cloud.outputs["QueueUrl"], TimeoutSeconds=600)
    execution = machines.start(machines.create({"Wait": wait}, TimeoutSeconds=1))
    assert machines.end(execution)["status"] == "TIMED_OUT"
    assert machines.history(execution)[-1]["type"] == "ExecutionTimedOut"
    with pytest.raises(machines.api.exceptions.TaskTimedOut):
        machines.api.send_task_heartbeat(taskToken=receive_token(cloud))


def test_a_stopped_execution_ends_at_once_with_error_and_cause(cloud: EmbeddedCloud, machines: Machines) -> None:
    execution = machines.start(machines.create({"Wait": wait_for_token(cloud.outputs["QueueUrl"], TimeoutSeconds=600)}))
    token = receive_token(cloud)
    machines.api.stop_execution(executionArn=execution, error="Mine", cause="because")
    result = machines.api.describe_execution(executionArn=execution)
    assert (result["status"], result["error"], result["cause"]) == ("ABORTED", "Mine", "because")
    last = until(lambda: (h := machines.history(execution))[-1]["type"] == "ExecutionAborted" and h[-1])
    assert last["executionAbortedEventDetails"] == {"error": "Mine", "cause": "because"}
    with pytest.raises(machines.api.exceptions.TaskTimedOut):
        machines.api.send_task_success(taskToken=token, output="{}")


def test_a_failed_execution_is_redriven_from_the_state_that_failed(cloud: EmbeddedCloud, machines: Machines) -> None:
    first = {"Type": "Pass", "Result": {"id": {"S": "redriven"}}, "ResultPath": "$.key", "Next": "Get"}
    get = task("dynamodb:getItem", {"TableName": cloud.outputs["Table"], "Key.$": "$.key"}, OutputPath="$.Item.id")
    execution = machines.start(machines.create({"First": first, "Get": get}))
    failed = machines.end(execution)
    assert (failed["status"], failed["redriveStatus"]) == ("FAILED", "REDRIVABLE")
    client(cloud, "dynamodb").put_item(TableName=cloud.outputs["Table"], Item={"id": {"S": "redriven"}})
    machines.api.redrive_execution(executionArn=execution)
    result = machines.end(execution)
    assert (result["status"], result["redriveCount"], result["redriveStatus"]) == ("SUCCEEDED", 1, "NOT_REDRIVABLE")
    entered = [
        e["stateEnteredEventDetails"]["name"] for e in machines.history(execution) if "stateEnteredEventDetails" in e
    ]
    assert entered == ["First", "Get", "Get"]
    with pytest.raises(ClientError, match="ExecutionNotRedrivable"):
        machines.api.redrive_execution(executionArn=execution)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_running_task_of_a_stopped_execution_does_not_affect_its_redrive(
    cloud: EmbeddedCloud, machines: Machines
) -> None:
    execution = machines.start(machines.create({"Sleep": invoke(cloud.outputs["Sleep"], {"seconds": 1})}))
    until(lambda: machines.history(execution)[-1]["type"] == "TaskStarted")
    machines.api.stop_execution(executionArn=execution)
    time.sleep(0.5)  # so that the first call answers while the second one is at work
    machines.api.redrive_execution(executionArn=execution)
    assert machines.end(execution)["status"] == "SUCCEEDED"
    ends = [event["type"] for event in machines.history(execution) if event["type"].endswith(("Succeeded", "Exited"))]
    assert ends == ["TaskSucceeded", "TaskStateExited", "ExecutionSucceeded"]


def test_a_definition_is_parsed_once(cloud: EmbeddedCloud) -> None:
    from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser

    definition = json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
    assert AmazonStateLanguageParser.parse(definition)[0] is AmazonStateLanguageParser.parse(definition)[0]


def test_an_inline_map_handles_700_items(machines: Machines) -> None:
    processor = {"StartAt": "Each", "States": {"Each": {"Type": "Pass", "End": True}}}
    states = {
        "Map": {"Type": "Map", "MaxConcurrency": 1, "ItemProcessor": processor, "ItemsPath": "$.items", "End": True}
    }
    assert machines.output(states, {"items": list(range(700))}) == list(range(700))


def test_a_history_can_leave_out_the_data(machines: Machines) -> None:
    execution = machines.start(machines.create({"Pass": {"Type": "Pass", "End": True}}), {"a": 1})
    machines.end(execution)
    events = machines.api.get_execution_history(executionArn=execution, includeExecutionData=False)["events"]
    assert events[0]["type"] == "ExecutionStarted"
    assert not any(name in str(event) for event in events for name in ("'input'", "'output'"))
