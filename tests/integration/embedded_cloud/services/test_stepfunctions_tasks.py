"""States that call services, wait for task tokens and catch errors."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import (
    Machines,
    client,
    invoke,
    invoke_directly,
    receive_token,
    task,
    wait_for_token,
)

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


def test_an_sdk_task_copies_an_object_by_its_encoded_source(cloud: EmbeddedCloud, machines: Machines) -> None:
    bucket = cloud.outputs["Bucket"]
    client(cloud, "s3").put_object(Bucket=bucket, Key="from here+there", Body=b"copied")
    source = f"{bucket}/from%20here%2Bthere"
    machines.output({"Copy": task("aws-sdk:s3:copyObject", {"CopySource": source, "Bucket": bucket, "Key": "to"})})
    assert client(cloud, "s3").get_object(Bucket=bucket, Key="to")["Body"].read() == b"copied"


def test_an_sdk_task_writes_json_and_reads_text(cloud: EmbeddedCloud, machines: Machines) -> None:
    place = {"Bucket": cloud.outputs["Bucket"], "Key": "document.json"}
    put = task("aws-sdk:s3:putObject", {**place, "Body": {"a": [1, None]}})
    del put["End"]
    get = task("aws-sdk:s3:getObject", place, ResultSelector={"document.$": "States.StringToJson($.Body)"})
    assert machines.output({"Put": {**put, "Next": "Get"}, "Get": get}) == {"document": {"a": [1, None]}}


def test_an_sdk_task_returns_pascal_case(machines: Machines) -> None:
    describe = task("aws-sdk:sfn:describeExecution", {"ExecutionArn.$": "$$.Execution.Id"})
    describe["ResultSelector"] = {"status.$": "$.Status", "name.$": "$.Name"}
    assert machines.output({"Describe": describe})["status"] == "RUNNING"


@pytest.mark.parametrize(
    ("resource", "parameters", "error"),
    [
        (
            "aws-sdk:s3:copyObject",
            {"CopySource": "{Bucket}/none", "Bucket": "{Bucket}", "Key": "k"},
            "S3.NoSuchKeyException",
        ),
        ("aws-sdk:s3:getObject", {"Bucket": "{Bucket}", "Key": "none"}, "S3.NoSuchKeyException"),
        ("aws-sdk:s3:headObject", {"Bucket": "{Bucket}", "Key": "none"}, "S3.NoSuchKeyException"),
        ("aws-sdk:s3:getBucketPolicy", {"Bucket": "{Bucket}"}, "S3.S3Exception"),
        ("aws-sdk:sfn:describeExecution", {"ExecutionArn": "{MachineArn}:x"}, "Sfn.ExecutionDoesNotExistException"),
        (
            "aws-sdk:sagemakerruntime:invokeEndpoint",
            {"EndpointName": "none", "Body": {}},
            "SageMakerRuntime.ValidationErrorException",
        ),
        (
            "aws-sdk:dynamodb:getItem",
            {"TableName": "none", "Key": {"id": {"S": "a"}}},
            "DynamoDb.ResourceNotFoundException",
        ),
        (
            "dynamodb:updateItem",
            {
                "TableName": "{Table}",
                "Key": {"id": {"S": "none"}},
                "UpdateExpression": "SET a = id",
                "ConditionExpression": "attribute_exists(id)",
            },
            "DynamoDB.ConditionalCheckFailedException",
        ),
    ],
)
def test_errors_of_services_have_step_functions_names(
    cloud: EmbeddedCloud, machines: Machines, resource: str, parameters: dict[str, Any], error: str
) -> None:
    filled = {k: v.format(**cloud.outputs) if isinstance(v, str) else v for k, v in parameters.items()}
    if "ExecutionArn" in filled:
        filled["ExecutionArn"] = filled["ExecutionArn"].replace(":stateMachine:", ":execution:")
    assert machines.run({"Task": task(resource, filled)})["error"] == error


def test_a_functions_error_is_caught_by_its_class_name(cloud: EmbeddedCloud, machines: Machines) -> None:
    catch = [{"ErrorEquals": ["NoSubjectError"], "ResultPath": "$.failed.Call", "Next": "Failed"}]
    call = invoke(cloud.outputs["Raise"], Catch=catch)
    failed = {"Type": "Fail", "ErrorPath": "$.failed.Call.Error", "CausePath": "$.failed.Call.Cause"}
    result = machines.run({"Call": call, "Failed": failed}, {"kept": 1})
    assert result["error"] == "NoSubjectError"
    assert json.loads(json.loads(result["cause"])["errorMessage"]) == {"field": "source.key"}


def test_a_task_timeout_is_states_timeout_and_writes_no_later_event(cloud: EmbeddedCloud, machines: Machines) -> None:
    invoke_directly(cloud, "Sleep", {"seconds": 0})  # warm, so that it ends while the execution goes on
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Late"}]
    states = {
        "Call": invoke(cloud.outputs["Sleep"], {"seconds": 1.5}, TimeoutSeconds=1, Catch=catch),
        "Late": {"Type": "Wait", "Seconds": 1, "End": True},
    }
    execution = machines.start(machines.create(states))
    assert machines.end(execution)["status"] == "SUCCEEDED"
    types = [event["type"] for event in machines.history(execution)]
    assert "TaskTimedOut" in types
    assert "TaskSucceeded" not in types


def test_states_all_does_not_catch_a_missing_path(machines: Machines) -> None:
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    call = invoke("any", {"a.$": "$.missing"}, Catch=catch)
    result = machines.run({"Call": call, "Caught": {"Type": "Succeed"}})
    assert (result["status"], result["error"]) == ("FAILED", "States.Runtime")


def test_a_token_can_be_completed_through_the_api(cloud: EmbeddedCloud, machines: Machines) -> None:
    execution = machines.start(machines.create({"Wait": wait_for_token(cloud.outputs["QueueUrl"])}))
    token = receive_token(cloud)
    with pytest.raises(machines.api.exceptions.InvalidToken):
        machines.api.send_task_success(taskToken=f"{token}x", output="{}")
    machines.api.send_task_success(taskToken=token, output='{"answer": 42}')
    assert json.loads(machines.end(execution)["output"]) == {"answer": 42}


def test_a_failure_report_keeps_its_cause(cloud: EmbeddedCloud, machines: Machines) -> None:
    execution = machines.start(machines.create({"Wait": wait_for_token(cloud.outputs["QueueUrl"])}))
    machines.api.send_task_failure(taskToken=receive_token(cloud), error="EmptyImageError", cause='{"field": "x"}')
    result = machines.end(execution)
    assert (result["error"], result["cause"]) == ("EmptyImageError", '{"field": "x"}')


def test_a_task_accepts_only_its_first_result(cloud: EmbeddedCloud, machines: Machines) -> None:
    execution = machines.start(machines.create({"Wait": wait_for_token(cloud.outputs["QueueUrl"])}))
    token = receive_token(cloud)
    machines.api.send_task_success(taskToken=token, output='{"answer": 1}')
    with pytest.raises(ClientError, match="TaskTimedOut"):
        machines.api.send_task_success(taskToken=token, output='{"answer": 2}')
    assert json.loads(machines.end(execution)["output"]) == {"answer": 1}


def test_each_attempt_gets_a_new_token(cloud: EmbeddedCloud, machines: Machines) -> None:
    retry = [{"ErrorEquals": ["TransientError"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    execution = machines.start(machines.create({"Wait": wait_for_token(cloud.outputs["QueueUrl"], Retry=retry)}))
    first = receive_token(cloud)
    machines.api.send_task_failure(taskToken=first, error="TransientError", cause="")
    second = receive_token(cloud)
    assert second != first
    with pytest.raises(machines.api.exceptions.TaskTimedOut):
        machines.api.send_task_success(taskToken=first, output="{}")
    machines.api.send_task_success(taskToken=second, output='{"attempt": 2}')
    assert json.loads(machines.end(execution)["output"]) == {"attempt": 2}


def test_a_missed_heartbeat_is_states_heartbeat_timeout(cloud: EmbeddedCloud, machines: Machines) -> None:
    window_s = 4
    wait = wait_for_token(cloud.outputs["QueueUrl"], HeartbeatSeconds=window_s, TimeoutSeconds=60)
    execution = machines.start(machines.create({"Wait": wait}))
    token = receive_token(cloud)
    beaten_until = time.monotonic() + 1.25 * window_s
    while time.monotonic() < beaten_until:
        machines.api.send_task_heartbeat(taskToken=token)
        time.sleep(0.1)
    assert machines.end(execution)["error"] == "States.HeartbeatTimeout"
    with pytest.raises(machines.api.exceptions.TaskTimedOut):
        machines.api.send_task_heartbeat(taskToken=token)


def test_states_timeout_catches_missed_heartbeats(cloud: EmbeddedCloud, machines: Machines) -> None:
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}]
    wait = wait_for_token(cloud.outputs["QueueUrl"], HeartbeatSeconds=1, TimeoutSeconds=60, Catch=catch)
    assert machines.output({"Wait": wait, "Caught": {"Type": "Succeed"}})["Error"] == "States.HeartbeatTimeout"
    receive_token(cloud)


def test_a_result_before_the_wait_is_accepted(cloud: EmbeddedCloud, machines: Machines) -> None:
    parameters = {"FunctionName": cloud.outputs["Answer"], "Payload": {"token.$": "$$.Task.Token"}}
    wait = task("lambda:invoke.waitForTaskToken", parameters, HeartbeatSeconds=3, TimeoutSeconds=60)
    assert machines.output({"Wait": wait}) == {"answered": "early"}


def test_context_object_and_intrinsic_functions_work(machines: Machines) -> None:
    parameters = {
        "execution": {"id.$": "$$.Execution.Id", "name.$": "$$.Execution.Name", "started.$": "$$.Execution.StartTime"},
        "entered.$": "$$.State.EnteredTime",
        "merged.$": "States.JsonMerge(States.StringToJson($.text), $.more, false)",
        "again.$": "States.JsonToString($.more)",
    }
    made = machines.output(
        {"Pass": {"Type": "Pass", "Parameters": parameters, "End": True}},
        {"text": '{"a": 1, "b": {"c": 1}}', "more": {"b": {"d": 2}}},
    )
    assert made["execution"]["id"].endswith(made["execution"]["name"])
    assert datetime.fromisoformat(made["execution"]["started"]) <= datetime.fromisoformat(made["entered"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["entered"])
    assert made["merged"] == {"a": 1, "b": {"d": 2}}
    assert json.loads(made["again"]) == {"b": {"d": 2}}


def test_fifty_concurrent_executions_succeed(cloud: EmbeddedCloud, machines: Machines) -> None:
    calls = {
        f"Call{n}": {**invoke(cloud.outputs["Echo"], OutputPath="$.Payload.event"), "Next": f"Call{n + 1}"}
        for n in range(2)
    }
    for call in calls.values():
        del call["End"]
    machine = machines.create({**calls, "Call2": {"Type": "Pass", "End": True}})
    with ThreadPoolExecutor(10) as pool:
        started = list(pool.map(lambda _: machines.start(machine), range(50)))
    assert {machines.end(execution)["status"] for execution in started} == {"SUCCEEDED"}
