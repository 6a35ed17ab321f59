"""The embedded cloud's contract with AWS: each test names what AWS does and moto alone does not."""

import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.stepfunctions.parser.backend.execution import Execution

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.deploy import create_stack
from tests import conftest

HERE = Path(__file__).parent / "embedded"
ENDPOINT = "segmenter"
ROLE = "arn:aws:iam::123456789012:role/tests"


@pytest.fixture(scope="module")
def cloud() -> Iterator[EmbeddedCloud]:
    parameters = {"Greeting": "good day"}
    with EmbeddedCloud(HERE / "template.yaml", parameters, mock_config=HERE / "MockConfigFile.json") as running:
        yield running


def client(cloud: EmbeddedCloud, service: str) -> Any:
    return conftest.client(service, cloud.endpoint_url, cloud.region)


def until(condition: Callable[[], Any], timeout_s: float = 10) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.02)
    return value


class Machines:
    """State machines of single tests."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self.api = client(cloud, "stepfunctions")

    def create(self, states: dict[str, Any], name: str | None = None, **top: Any) -> str:
        definition = json.dumps({"StartAt": next(iter(states)), "States": states, **top})
        machine = self.api.create_state_machine(name=name or uuid.uuid4().hex, definition=definition, roleArn=ROLE)
        return str(machine["stateMachineArn"])

    def start(self, machine: str, given: Any = None) -> str:
        started = self.api.start_execution(stateMachineArn=machine, input=json.dumps(given or {}))
        return str(started["executionArn"])

    def end(self, execution: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            described: dict[str, Any] = self.api.describe_execution(executionArn=execution)
            return described if described["status"] != "RUNNING" else None

        result: dict[str, Any] = until(ended, 20)
        return result

    def run(self, states: dict[str, Any], given: Any = None, **top: Any) -> dict[str, Any]:
        return self.end(self.start(self.create(states, **top), given))

    def output(self, states: dict[str, Any], given: Any = None) -> Any:
        result = self.run(states, given)
        assert result["status"] == "SUCCEEDED", result.get("cause")
        return json.loads(result["output"])

    def history(self, execution: str) -> list[dict[str, Any]]:
        pages = self.api.get_paginator("get_execution_history").paginate(executionArn=execution)
        return [event for page in pages for event in page["events"]]


@pytest.fixture(scope="module")
def machines(cloud: EmbeddedCloud) -> Machines:
    return Machines(cloud)


def task(resource: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": f"arn:aws:states:::{resource}", "Parameters": parameters, "End": True, **more}


def invoke(function: str, payload: Any = None, **more: Any) -> dict[str, Any]:
    return task("lambda:invoke", {"FunctionName": function, "Payload": payload or {}}, **more)


def wait_for_token(queue_url: str, **more: Any) -> dict[str, Any]:
    return task(
        "sqs:sendMessage.waitForTaskToken", {"QueueUrl": queue_url, "MessageBody": {"token.$": "$$.Task.Token"}}, **more
    )


def receive_token(cloud: EmbeddedCloud) -> str:
    sqs = client(cloud, "sqs")
    url = cloud.outputs["QueueUrl"]
    message = until(lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages"))[0]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return str(json.loads(message["Body"])["token"])


# ---- CloudFormation


def test_buckets_keep_their_configuration(cloud: EmbeddedCloud) -> None:
    s3, bucket = client(cloud, "s3"), cloud.outputs["Bucket"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    expiry, deleted, unfinished = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert (expiry["Filter"], expiry["Expiration"]) == ({"Prefix": "old/"}, {"Days": 3})
    assert deleted["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    assert unfinished["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


def test_tables_keep_their_configuration(cloud: EmbeddedCloud) -> None:
    dynamodb, table = client(cloud, "dynamodb"), cloud.outputs["Table"]
    assert dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"
    backups = dynamodb.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_a_conditional_write_is_one_step(cloud: EmbeddedCloud) -> None:
    dynamodb, table = client(cloud, "dynamodb"), cloud.outputs["Table"]
    [key_name] = [key["AttributeName"] for key in dynamodb.describe_table(TableName=table)["Table"]["KeySchema"]]
    claim = {"UpdateExpression": "SET #o = :me", "ConditionExpression": f"attribute_not_exists({key_name})"}

    def take(number: int) -> bool:
        key, me = {key_name: {"S": f"race/{number // 8}"}}, {":me": {"S": str(number)}}
        seen = dynamodb.get_item(TableName=table, Key=key).get("Item", {"owner": None})
        assert "owner" in seen, "an item is never half there"
        names = {"#o": "owner"}
        try:
            dynamodb.update_item(
                TableName=table, Key=key, ExpressionAttributeNames=names, ExpressionAttributeValues=me, **claim
            )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns a thousand times as often as they do of themselves
    try:
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(take, range(400)))
    finally:
        sys.setswitchinterval(interval)
    assert [sum(won[first : first + 8]) for first in range(0, 400, 8)] == [1] * 50


def test_resources_of_types_unknown_to_moto_are_made(cloud: EmbeddedCloud) -> None:
    alarm = client(cloud, "cloudwatch").describe_alarms()["MetricAlarms"][0]
    assert alarm["MetricName"] == "ExecutionsFailed"
    assert client(cloud, "logs").describe_metric_filters(logGroupName=cloud.outputs["Logs"])["metricFilters"]
    assert client(cloud, "sns").list_subscriptions()["Subscriptions"][0]["Endpoint"] == "nobody@example.com"
    attributes = client(cloud, "sqs").get_queue_attributes(
        QueueUrl=cloud.outputs["QueueUrl"], AttributeNames=["Policy"]
    )
    assert "sqs:SendMessage" in attributes["Attributes"]["Policy"]
    retries = client(cloud, "lambda").get_function_event_invoke_config(FunctionName=cloud.outputs["Echo"])
    assert retries["MaximumRetryAttempts"] == 1


def test_a_secret_is_generated(cloud: EmbeddedCloud) -> None:
    secret = client(cloud, "secretsmanager").get_secret_value(SecretId=cloud.outputs["Secret"])["SecretString"]
    assert len(secret) == 40
    assert secret.isalnum()


def test_what_has_no_effect_is_said(cloud: EmbeddedCloud) -> None:
    skipped = {(logical_id, what): why for logical_id, what, why in cloud.skipped}
    assert ("ApiApiGatewayDefaultStage", "DefaultRouteSettings") in skipped
    assert "TLS-only" in skipped["BucketPolicy", "AWS::S3::BucketPolicy"]
    assert skipped["WebAcl", "AWS::WAFv2::WebACL"] == "moto has no such type"
    assert ("MachineUpload", "Targets.RetryPolicy") in skipped
    assert ("ShapedRule", "Targets.RetryPolicy") not in skipped
    assert ("Bucket", "BucketEncryption") not in skipped
    assert not any(logical_id == "NeverBucket" for logical_id, _ in skipped)


def test_a_machine_keeps_its_substitutions_and_configuration(cloud: EmbeddedCloud, machines: Machines) -> None:
    machine = machines.api.describe_state_machine(stateMachineArn=cloud.outputs["MachineArn"])
    assert cloud.outputs["Echo"] in machine["definition"]
    assert machine["type"] == "STANDARD"
    assert machine["loggingConfiguration"]["level"] == "ALL"
    assert machine["tracingConfiguration"] == {"enabled": True}


# ---- API Gateway


def ask(cloud: EmbeddedCloud, path: str, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(cloud.outputs["ApiUrl"] + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def test_an_http_api_is_served_with_its_functions_behind_it(cloud: EmbeddedCloud) -> None:
    status, answer = ask(cloud, "/echo/a%20b?size=1", Accept="text/plain")
    assert status == 200
    event = answer["event"]
    assert (event["routeKey"], event["pathParameters"]) == ("ANY /echo/{proxy+}", {"proxy": "a b"})
    assert (event["queryStringParameters"], event["headers"]["accept"]) == ({"size": "1"}, "text/plain")
    assert ask(cloud, "/elsewhere") == (404, {"message": "Not Found"})


def test_a_signed_route_tells_the_function_who_signed(cloud: EmbeddedCloud) -> None:
    signature = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261123/eu-west-1/execute-api/aws4_request, Signature=0"
    _, answer = ask(cloud, "/signed/7", Authorization=signature)
    assert answer["event"]["requestContext"]["authorizer"]["iam"]["accessKey"] == "AKIDEXAMPLE"
    assert ask(cloud, "/signed/7") == (403, {"message": "Forbidden"})


def test_a_function_that_fails_behind_an_api_is_an_internal_server_error(cloud: EmbeddedCloud) -> None:
    assert ask(cloud, "/fail") == (500, {"message": "Internal Server Error"})


# ---- Lambda


def invoke_directly(cloud: EmbeddedCloud, output: str, event: Any = None) -> tuple[Any, bool]:
    response = client(cloud, "lambda").invoke(FunctionName=cloud.outputs[output], Payload=json.dumps(event or {}))
    return json.load(response["Payload"]), "FunctionError" in response


def test_a_function_runs_in_lambdas_own_runtime(cloud: EmbeddedCloud) -> None:
    answer, failed = invoke_directly(cloud, "Echo", {"a": 1})
    assert not failed
    assert answer["event"] == {"a": 1}
    assert 0 < answer["remaining_ms"] <= 2000
    assert answer["arn"].endswith(f":function:{cloud.outputs['Echo']}")
    assert answer["environment"]["AWS_LAMBDA_FUNCTION_NAME"] == cloud.outputs["Echo"]


def test_a_function_sees_the_templates_variables_and_none_of_the_callers(
    cloud: EmbeddedCloud, monkeypatch: Any
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "1")
    with ThreadPoolExecutor(3) as pool:  # at once, so that there are new sandboxes
        answers = list(pool.map(lambda _: invoke_directly(cloud, "Echo")[0], range(3)))
    for answer in answers:
        assert answer["environment"]["GREETING"] == "good day"
        assert answer["environment"]["AWS_ENDPOINT_URL"] == cloud.endpoint_url
        assert "SECRET_OF_THE_CALLER" not in answer["environment"]


def test_a_sandbox_stays_warm(cloud: EmbeddedCloud) -> None:
    first, _ = invoke_directly(cloud, "Echo")
    again, _ = invoke_directly(cloud, "Echo")
    assert (again["process"], again["calls"]) == (first["process"], first["calls"] + 1)


def test_calls_beyond_the_concurrency_wait(cloud: EmbeddedCloud) -> None:
    count = 2 * (os.cpu_count() or 1) + 1
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: invoke_directly(cloud, "Sleep", {"seconds": 0.3}), range(count)))
    assert not any(failed for _, failed in answers)
    spans = sorted((answer["started"], answer["ended"]) for answer, _ in answers)
    assert spans[-1][0] >= min(ended for _, ended in spans)


def test_an_exception_is_its_class_name_and_message(cloud: EmbeddedCloud) -> None:
    answer, failed = invoke_directly(cloud, "Raise")
    assert failed
    assert answer["errorType"] == "NoSubjectError"
    assert json.loads(answer["errorMessage"]) == {"field": "source.key"}


def test_a_function_that_takes_too_long_is_stopped(cloud: EmbeddedCloud) -> None:
    answer, failed = invoke_directly(cloud, "Sleep", {"seconds": 60})
    assert failed
    assert answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"].endswith("Error: Task timed out after 2.00 seconds")


def test_a_function_that_dies_is_an_exit_error_and_the_next_call_starts_anew(cloud: EmbeddedCloud) -> None:
    for _ in range(2):
        answer, failed = invoke_directly(cloud, "Die")
        assert failed
        assert answer["errorType"] == "Runtime.ExitError"
        assert answer["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")


def test_a_function_that_cannot_be_imported_is_an_import_error(cloud: EmbeddedCloud) -> None:
    answer, failed = invoke_directly(cloud, "Broken")
    assert failed
    assert answer["errorType"] == "Runtime.ImportModuleError"
    assert "no_such_module" in answer["errorMessage"]


def test_a_functions_output_is_in_its_log_group(cloud: EmbeddedCloud) -> None:
    invoke_directly(cloud, "Echo")
    logs = client(cloud, "logs")

    def lines() -> set[str]:
        events = logs.filter_log_events(logGroupName=cloud.outputs["Logs"])["events"]
        return {event["message"].split()[0] for event in events}

    until(lambda: {"START", "echo", "END", "REPORT"} <= lines())


# ---- S3 and EventBridge


def executions_with(cloud: EmbeddedCloud, machines: Machines, key: str, count: int = 1) -> list[Any]:
    """Inputs of the executions of the template's machine that name the key, once there are as many."""

    def inputs() -> list[Any]:
        listed = machines.api.list_executions(stateMachineArn=cloud.outputs["MachineArn"])["executions"]
        described = [machines.api.describe_execution(executionArn=item["executionArn"]) for item in listed]
        return [json.loads(item["input"]) for item in described if key in item["input"]]

    found: list[Any] = until(lambda: inputs() if len(inputs()) >= count else None)
    return found


def test_an_upload_starts_the_machine_with_the_whole_event(cloud: EmbeddedCloud, machines: Machines) -> None:
    s3, bucket, key = client(cloud, "s3"), cloud.outputs["Bucket"], "in/a b+ü.jpg"
    put = s3.put_object(Bucket=bucket, Key=key, Body=b"four")
    (event,) = executions_with(cloud, machines, "in/a b")
    assert event["detail"]["bucket"] == {"name": bucket}
    assert event["detail"]["reason"] == "PutObject"
    subject = event["detail"]["object"]
    assert subject.pop("sequencer")
    assert subject == {"key": key, "size": 4, "etag": put["ETag"].strip('"'), "version-id": put["VersionId"]}
    assert event["source"] == "aws.s3"
    assert event["region"] == cloud.region


def test_events_differ_in_id_and_sequencer(cloud: EmbeddedCloud, machines: Machines) -> None:
    s3 = client(cloud, "s3")
    for _ in range(2):
        s3.put_object(Bucket=cloud.outputs["Bucket"], Key="in/twice", Body=b"")
    one, other = executions_with(cloud, machines, "in/twice", count=2)
    assert one["id"] != other["id"]
    assert one["detail"]["object"]["sequencer"] != other["detail"]["object"]["sequencer"]


def test_an_event_of_a_bucket_without_versions_names_none(cloud: EmbeddedCloud, machines: Machines) -> None:
    client(cloud, "s3").put_object(Bucket=cloud.outputs["PlainBucket"], Key="in/plain", Body=b"")
    (event,) = executions_with(cloud, machines, "in/plain")
    assert "version-id" not in event["detail"]["object"]


def test_the_version_of_an_event_stays_readable(cloud: EmbeddedCloud) -> None:
    s3, bucket = client(cloud, "s3"), cloud.outputs["Bucket"]
    first = s3.put_object(Bucket=bucket, Key="versions", Body=b"first")["VersionId"]
    s3.put_object(Bucket=bucket, Key="versions", Body=b"second")
    s3.delete_object(Bucket=bucket, Key="versions")
    assert s3.get_object(Bucket=bucket, Key="versions", VersionId=first)["Body"].read() == b"first"


def test_an_object_is_announced_with_its_metadata_in_place(cloud: EmbeddedCloud, machines: Machines) -> None:
    head = task("aws-sdk:s3:headObject", {"Bucket.$": "$.detail.bucket.name", "Key.$": "$.detail.object.key"})
    head["OutputPath"] = "$.Metadata"
    machine = machines.create({"Head": head})
    events = client(cloud, "events")
    pattern = {"source": ["aws.s3"], "detail": {"object": {"key": [{"prefix": "described/"}]}}}
    events.put_rule(Name="described", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="described", Targets=[{"Id": "1", "Arn": machine, "RoleArn": ROLE}])
    s3, count = client(cloud, "s3"), 20
    for number in range(count):
        s3.put_object(
            Bucket=cloud.outputs["Bucket"], Key=f"described/{number}", Body=b"x" * 100_000, Metadata={"pbr-a": "1"}
        )
    listed = until(
        lambda: (e := machines.api.list_executions(stateMachineArn=machine)["executions"]) and len(e) == count and e
    )
    outputs = [machines.end(item["executionArn"])["output"] for item in listed]
    assert [json.loads(output) for output in outputs] == [{"pbr-a": "1"}] * count


def test_a_target_gets_the_event_in_the_shape_it_asked_for(cloud: EmbeddedCloud, machines: Machines) -> None:
    bucket, key = cloud.outputs["Bucket"], 'shaped/"it"'
    client(cloud, "s3").put_object(Bucket=bucket, Key=key, Body=b"123")
    given = executions_with(cloud, machines, "shaped/", count=2)
    assert {"uri": f"s3://{bucket}/{key}", "size": 3, "key": key} in given
    assert key in [item.get("key") for item in given if "etag" in item]
    assert {"constant": True} in executions_with(cloud, machines, "constant")


def test_many_uploads_at_once_start_as_many_executions(cloud: EmbeddedCloud, machines: Machines) -> None:
    s3, bucket = client(cloud, "s3"), cloud.outputs["Bucket"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: s3.put_object(Bucket=bucket, Key=f"in/many-{number}", Body=b""), range(24)))
    assert len(executions_with(cloud, machines, "in/many-", count=24)) == 24


# ---- Step Functions: the API


def test_executions_without_a_name_do_not_clash(machines: Machines) -> None:
    machine = machines.create({"Pass": {"Type": "Pass", "End": True}})
    assert machines.start(machine) != machines.start(machine)


def test_an_execution_that_is_listed_has_a_status(
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


def test_a_mock_throws_what_only_step_functions_itself_throws(cloud: EmbeddedCloud, machines: Machines) -> None:
    retry = [{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    machine = machines.create({"Ask": invoke(cloud.outputs["Raise"], Retry=retry)}, name="mocked-slow")
    mocked = machines.end(machines.start(f"{machine}#SecondTry"))
    assert json.loads(mocked["output"])["Payload"] == {"mocked": True}


def test_an_error_mocked_at_dynamodb_keeps_its_name(cloud: EmbeddedCloud, machines: Machines) -> None:
    get = task("dynamodb:getItem", {"TableName": cloud.outputs["Table"], "Key": {"id": {"S": "any"}}})
    machine = machines.create({"Get": get}, name="mocked-table")
    assert machines.end(machines.start(f"{machine}#Throttled"))["error"] == "DynamoDB.ThrottlingException"


def test_an_attempt_that_no_mock_is_for_runs(cloud: EmbeddedCloud, machines: Machines) -> None:
    retry = [{"ErrorEquals": ["Lambda.ServiceException"], "IntervalSeconds": 1, "MaxAttempts": 3}]
    machine = machines.create({"Ask": invoke(cloud.outputs["Echo"], {"real": True}, Retry=retry)}, "mocked-once")
    result = machines.end(machines.start(f"{machine}#RealSecondTry"))
    assert json.loads(result["output"])["Payload"]["event"] == {"real": True}


@pytest.mark.parametrize("error", ["States.Timeout", "NoSubjectError"])
def test_a_fail_state_ends_with_any_error(machines: Machines, error: str) -> None:
    assert machines.run({"Failed": {"Type": "Fail", "ErrorPath": "$.error"}}, {"error": error})["error"] == error


def test_what_is_not_dynamodb_s_fault_is_not_named_after_it(machines: Machines) -> None:
    key = {"TableName": "any", "Key": {"key": {"S.$": "$.missing"}}}
    assert machines.run({"Get": task("dynamodb:getItem", key)})["error"] == "States.Runtime"


def test_the_history_comes_in_pages_and_in_reverse(machines: Machines) -> None:
    execution = machines.start(machines.create({"Pass": {"Type": "Pass", "End": True}}))
    machines.end(execution)
    page = machines.api.get_execution_history(executionArn=execution, maxResults=2, reverseOrder=True)
    assert [event["type"] for event in page["events"]] == ["ExecutionSucceeded", "PassStateExited"]
    rest = machines.api.get_execution_history(executionArn=execution, reverseOrder=True, nextToken=page["nextToken"])
    assert [event["type"] for event in rest["events"]] == ["PassStateEntered", "ExecutionStarted"]


def test_an_execution_that_times_out_has_a_stop_date(machines: Machines) -> None:
    machine = machines.create({"Wait": {"Type": "Wait", "Seconds": 30, "End": True}}, TimeoutSeconds=1)
    result = machines.end(machines.start(machine))
    assert result["status"] == "TIMED_OUT"
    assert result["stopDate"] > result["startDate"]
    [listed] = machines.api.list_executions(stateMachineArn=machine, statusFilter="TIMED_OUT")["executions"]
    assert listed["stopDate"] == result["stopDate"]


def test_an_execution_that_times_out_ends_in_its_history_whatever_its_task_does(
    cloud: EmbeddedCloud, machines: Machines
) -> None:
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
def test_what_a_stopped_execution_has_under_way_changes_nothing_of_its_redrive(
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


def test_an_inline_map_of_hundreds_ends(machines: Machines) -> None:
    processor = {"StartAt": "Each", "States": {"Each": {"Type": "Pass", "End": True}}}
    states = {
        "Map": {"Type": "Map", "MaxConcurrency": 1, "ItemProcessor": processor, "ItemsPath": "$.items", "End": True}
    }
    assert machines.output(states, {"items": list(range(700))}) == list(range(700))


# ---- Step Functions: tasks


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


def test_an_sdk_task_answers_in_pascal_case(machines: Machines) -> None:
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


def test_a_task_that_exceeds_its_timeout_is_a_states_timeout_and_leaves_no_later_event(
    cloud: EmbeddedCloud, machines: Machines
) -> None:
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


def test_a_token_is_answered_by_another_process(cloud: EmbeddedCloud, machines: Machines) -> None:
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


def test_a_task_takes_its_first_answer_and_no_other(cloud: EmbeddedCloud, machines: Machines) -> None:
    execution = machines.start(machines.create({"Wait": wait_for_token(cloud.outputs["QueueUrl"])}))
    token = receive_token(cloud)
    machines.api.send_task_success(taskToken=token, output='{"answer": 1}')
    with pytest.raises(ClientError, match="TaskTimedOut"):
        machines.api.send_task_success(taskToken=token, output='{"answer": 2}')
    assert json.loads(machines.end(execution)["output"]) == {"answer": 1}


def test_every_attempt_has_a_token_of_its_own(cloud: EmbeddedCloud, machines: Machines) -> None:
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


def test_a_missed_heartbeat_has_a_name_of_its_own(cloud: EmbeddedCloud, machines: Machines) -> None:
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


def test_states_timeout_means_missed_heartbeats_too(cloud: EmbeddedCloud, machines: Machines) -> None:
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}]
    wait = wait_for_token(cloud.outputs["QueueUrl"], HeartbeatSeconds=1, TimeoutSeconds=60, Catch=catch)
    assert machines.output({"Wait": wait, "Caught": {"Type": "Succeed"}})["Error"] == "States.HeartbeatTimeout"
    receive_token(cloud)


def test_an_answer_that_comes_before_the_wait_counts(cloud: EmbeddedCloud, machines: Machines) -> None:
    parameters = {"FunctionName": cloud.outputs["Answer"], "Payload": {"token.$": "$$.Task.Token"}}
    wait = task("lambda:invoke.waitForTaskToken", parameters, HeartbeatSeconds=3, TimeoutSeconds=60)
    assert machines.output({"Wait": wait}) == {"answered": "early"}


def test_the_context_object_and_the_intrinsics_are_there(machines: Machines) -> None:
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


def test_fifty_executions_at_once_all_end(cloud: EmbeddedCloud, machines: Machines) -> None:
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


# ---- ECS


def worker_notes(cloud: EmbeddedCloud, what: str) -> set[str]:
    listed = client(cloud, "s3").list_objects_v2(Bucket=cloud.outputs["Bucket"], Prefix="worker/").get("Contents", [])
    return {item["Key"].split("/")[1] for item in listed if item["Key"].endswith(what)}


def test_nothing_has_been_scaled(cloud: EmbeddedCloud) -> None:
    scaling = client(cloud, "application-autoscaling")
    assert scaling.describe_scaling_activities(ServiceNamespace="ecs")["ScalingActivities"] == []


def test_a_service_that_names_no_count_has_one_task(cloud: EmbeddedCloud) -> None:
    ecs, bucket = client(cloud, "ecs"), cloud.outputs["PlainBucket"]
    container = {"Name": "worker", "Image": "w", "Memory": 512, "Command": ["python", "-m", "worker"]}
    environment = [{"Name": "BUCKET", "Value": bucket}]
    task = {"Family": "single", "ContainerDefinitions": [{**container, "Environment": environment}]}
    service = {"Cluster": cloud.outputs["Cluster"], "TaskDefinition": {"Ref": "Task"}}
    template = {
        "Resources": {
            "Task": {"Type": "AWS::ECS::TaskDefinition", "Properties": task},
            "Service": {"Type": "AWS::ECS::Service", "Properties": service},
        },
        "Outputs": {"Service": {"Value": {"Fn::GetAtt": ["Service", "Name"]}}},
    }
    name = create_stack(client(cloud, "cloudformation"), "single", template, {})["Service"]
    (described,) = ecs.describe_services(cluster=cloud.outputs["Cluster"], services=[name])["services"]
    assert (described["desiredCount"], described["runningCount"]) == (1, 1)
    until(lambda: client(cloud, "s3").list_objects_v2(Bucket=bucket, Prefix="worker/").get("Contents"))
    ecs.update_service(cluster=cloud.outputs["Cluster"], service=name, desiredCount=0)


def test_a_service_runs_its_container_restarts_it_and_drains_it(cloud: EmbeddedCloud) -> None:
    s3, ecs = client(cloud, "s3"), client(cloud, "ecs")
    (first,) = until(lambda: worker_notes(cloud, "started"))
    s3.put_object(Bucket=cloud.outputs["Bucket"], Key="worker/die", Body=b"")
    until(lambda: len(worker_notes(cloud, "started")) == 2)
    (second,) = worker_notes(cloud, "started") - {first}
    assert not worker_notes(cloud, "drained")
    ecs.update_service(cluster=cloud.outputs["Cluster"], service=cloud.outputs["Service"], desiredCount=0)
    assert worker_notes(cloud, "drained") == {second}
    assert not Path(f"/proc/{second}").exists()


# ---- SageMaker


ASYNC_ENDPOINT = "queued"


@pytest.fixture(scope="module")
def queued(cloud: EmbeddedCloud) -> Iterator[str]:
    """An asynchronous endpoint that somebody made, of the model of the template's own one."""
    sagemaker, bucket = client(cloud, "sagemaker"), cloud.outputs["PlainBucket"]
    variant = {"VariantName": "AllTraffic", "ModelName": cloud.outputs["EndpointModel"]}
    places = {"S3OutputPath": f"s3://{bucket}/answers/", "S3FailurePath": f"s3://{bucket}/failures"}
    sagemaker.create_endpoint_config(
        EndpointConfigName=ASYNC_ENDPOINT,
        ProductionVariants=[{**variant, "InstanceType": "ml.c6i.xlarge", "InitialInstanceCount": 1}],
        AsyncInferenceConfig={"OutputConfig": places, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2}},
    )
    sagemaker.create_endpoint(EndpointName=ASYNC_ENDPOINT, EndpointConfigName=ASYNC_ENDPOINT)
    yield ASYNC_ENDPOINT
    sagemaker.delete_endpoint(EndpointName=ASYNC_ENDPOINT)
    with pytest.raises(ClientError, match="not found"):
        client(cloud, "sagemaker-runtime").invoke_endpoint(EndpointName=ASYNC_ENDPOINT, Body=b"{}")


def lying_at(cloud: EmbeddedCloud, uri: str) -> Any:
    """The object of an s3:// address, once it is there."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3 = client(cloud, "s3")
    until(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents"))
    return s3.get_object(Bucket=bucket, Key=key)


def test_an_endpoint_hands_the_body_to_its_container(cloud: EmbeddedCloud, machines: Machines) -> None:
    parameters = {"EndpointName": ENDPOINT, "ContentType": "application/json", "Accept": "a/b", "Body.$": "$"}
    invocation = task("aws-sdk:sagemakerruntime:invokeEndpoint", parameters)
    invocation["ResultSelector"] = {"answer.$": "States.StringToJson($.Body)"}
    answer = machines.output({"Invoke": invocation}, {"key": "a"})["answer"]
    assert answer == {"got": {"key": "a"}, "greeting": "good day", "types": ["application/json", "a/b"]}


def test_an_endpoint_takes_and_gives_any_bytes(cloud: EmbeddedCloud) -> None:
    sent = bytes(range(256))
    answer = client(cloud, "sagemaker-runtime").invoke_endpoint(
        EndpointName=ENDPOINT, ContentType="application/octet-stream", Body=sent
    )
    assert (answer["Body"].read(), answer["ContentType"]) == (sent[::-1], "application/octet-stream")


def test_an_endpoint_that_is_described_is_in_service(cloud: EmbeddedCloud) -> None:
    assert client(cloud, "sagemaker").describe_endpoint(EndpointName=ENDPOINT)["EndpointStatus"] == "InService"


@pytest.mark.parametrize(("status", "side"), [(400, "client"), (503, "server")])
def test_what_a_container_refuses_is_a_model_error(cloud: EmbeddedCloud, status: int, side: str) -> None:
    runtime = client(cloud, "sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError) as raised:
        runtime.invoke_endpoint(
            EndpointName=ENDPOINT, ContentType="application/json", Body=json.dumps({"status": status})
        )
    assert raised.value.response["OriginalStatusCode"] == status
    assert f"Received {side} error ({status}) from primary" in raised.value.response["Error"]["Message"]


def test_an_asynchronous_endpoint_reads_and_writes_s3(cloud: EmbeddedCloud, queued: str) -> None:
    bucket = cloud.outputs["PlainBucket"]
    client(cloud, "s3").put_object(Bucket=bucket, Key="requests/1", Body=b'{"key": "a"}')
    answer = client(cloud, "sagemaker-runtime").invoke_endpoint_async(
        EndpointName=queued,
        InputLocation=f"s3://{bucket}/requests/1",
        ContentType="application/json",
        Accept="application/json",
        InferenceId="first",
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "first"
    assert answer["OutputLocation"].startswith(f"s3://{bucket}/answers/")
    written = lying_at(cloud, answer["OutputLocation"])
    assert written["ContentType"] == "application/json"
    assert json.load(written["Body"])["got"] == {"key": "a"}


def test_an_asynchronous_endpoint_takes_a_small_request_as_it_is(cloud: EmbeddedCloud, queued: str) -> None:
    runtime = client(cloud, "sagemaker-runtime")
    answer = runtime.invoke_endpoint_async(EndpointName=queued, ContentType="application/json", Body=b'{"key": "b"}')
    assert answer["InferenceId"]
    got = json.load(lying_at(cloud, answer["OutputLocation"])["Body"])
    assert (got["got"], got["types"][0]) == ({"key": "b"}, "application/json")


def test_what_a_container_refuses_lies_on_the_failure_path(cloud: EmbeddedCloud, queued: str) -> None:
    runtime, bucket = client(cloud, "sagemaker-runtime"), cloud.outputs["PlainBucket"]
    refused = runtime.invoke_endpoint_async(EndpointName=queued, Body=b'{"status": 400}')
    missing = runtime.invoke_endpoint_async(EndpointName=queued, InputLocation=f"s3://{bucket}/requests/none")
    assert refused["FailureLocation"].startswith(f"s3://{bucket}/failures/")
    assert b"Received client error (400)" in lying_at(cloud, refused["FailureLocation"])["Body"].read()
    assert b"requests/none" in lying_at(cloud, missing["FailureLocation"])["Body"].read()
    listed = client(cloud, "s3").list_objects_v2(Bucket=bucket, Prefix="answers/").get("Contents", [])
    assert not [item for item in listed if refused["InferenceId"] in item["Key"]]


def test_an_endpoint_is_asked_in_its_own_way_only(cloud: EmbeddedCloud, queued: str) -> None:
    runtime = client(cloud, "sagemaker-runtime")
    for call in (
        lambda: runtime.invoke_endpoint(EndpointName=queued, Body=b"{}"),
        lambda: runtime.invoke_endpoint_async(EndpointName=ENDPOINT, Body=b"{}"),
        lambda: runtime.invoke_endpoint_async(EndpointName="none", Body=b"{}"),
        lambda: runtime.invoke_endpoint_async(EndpointName=queued),
    ):
        with pytest.raises(ClientError) as raised:
            call()
        assert raised.value.response["Error"]["Code"] == "ValidationError"


def asked_through_s3(cloud: EmbeddedCloud, endpoint: str) -> dict[str, Any]:
    """A state that leaves its request and token in S3, has an endpoint fetch it, and waits for the token."""
    place = {"Bucket": cloud.outputs["PlainBucket"], "Key.$": "$.key"}
    request = {**place, "Body": {"token.$": "$$.Task.Token", "job.$": "$.job"}}
    find = task("aws-sdk:s3:headObject", place, ResultPath=None)
    find["Retry"] = [{"ErrorEquals": ["S3.NoSuchKeyException"], "IntervalSeconds": 1, "MaxAttempts": 9}]
    del find["End"]
    location = f"States.Format('s3://{cloud.outputs['PlainBucket']}/{{}}', $.key)"
    invocation = {"EndpointName": endpoint, "ContentType": "application/json", "InputLocation.$": location}
    branches = [
        {"Wait": task("aws-sdk:s3:putObject.waitForTaskToken", request, TimeoutSeconds=60, HeartbeatSeconds=30)},
        {
            "Find": {**find, "Next": "Invoke"},
            "Invoke": task("aws-sdk:sagemakerruntime:invokeEndpointAsync", invocation),
        },
    ]
    return {
        "Type": "Parallel",
        "Branches": [{"StartAt": next(iter(states)), "States": states} for states in branches],
        "Catch": [{"ErrorEquals": ["NoSubjectError"], "ResultPath": "$.caught", "Next": "Caught"}],
        "Next": "Done",
    }


@pytest.mark.parametrize("job", [{"mask": "m"}, {"error": "NoSubjectError"}, {"error": "AnotherError"}])
def test_a_container_answers_the_token_of_a_request_in_s3(
    cloud: EmbeddedCloud, machines: Machines, queued: str, job: dict[str, str]
) -> None:
    states = {
        "Ask": asked_through_s3(cloud, queued),
        "Done": {"Type": "Pass", "End": True},
        "Caught": {"Type": "Pass", "InputPath": "$.caught", "End": True},
    }
    ended = machines.run(states, {"key": f"requests/{uuid.uuid4()}", "job": job})
    if "mask" in job:
        waited, invoked = json.loads(ended["output"])
        assert waited == {"done": job}
        assert invoked["OutputLocation"].startswith("s3://")
    elif job["error"] == "NoSubjectError":
        assert json.loads(ended["output"])["Error"] == "NoSubjectError"
    else:
        assert (ended["status"], ended["error"]) == ("FAILED", "AnotherError")
