"""Duplicate or late events, start requests, stage attempts and task token answers change nothing."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from botocore.exceptions import ClientError
from PIL import Image

from functions.segment.task_tokens import TaskTokens
from tests.conftest import client, disc, file_of
from tests.integration.deployment import Deployed, Ended, until
from tests.integration.state_machine.test_worker_process import Line, Process

NO_MASK = {"key": "work/none/mask.png", "width": 1, "height": 1, "model": "classical", "weights_sha256": None}
WRONG = {**NO_MASK, "host": "ecs", "seconds": 0.0, "warnings": []}
"""A wrong answer, which must not become the result."""


@pytest.fixture(autouse=True, scope="module")
def no_workers(stack: Deployed) -> Iterator[None]:
    """Stop the workers, so that a job for ECS waits until its test answers."""
    with stack.no_workers():
        yield


# ---- events


def deliver_again(stack: Deployed, execution_arn: str, name: str | None = None) -> str:
    """Start the execution that a second delivery of the event starts; return its ARN."""
    again = stack.sfn.describe_execution(executionArn=execution_arn)["input"]
    named = {"name": name} if name else {}
    return stack.sfn.start_execution(stateMachineArn=stack.outputs["StateMachineArn"], input=again, **named)[
        "executionArn"
    ]


def has_its_result_and_no_report(stack: Deployed, key: str, version: str) -> None:
    sidecar = json.loads(stack.result(f"results/{key}.png.json"))
    assert sidecar["source"]["version_id"] == version
    assert not stack.is_reported(key)


def test_an_event_that_is_delivered_twice_is_segmented_once(stack: Deployed) -> None:
    version = stack.upload("twice.png", disc(seed=300))
    first = stack.execution_of("twice.png", version)
    assert stack.wait(first).status == "SUCCEEDED"
    result = stack.result("results/twice.png.png")
    again = stack.wait(deliver_again(stack, first))
    assert again.status == "SUCCEEDED" and "SegmentOnLambda" not in again.states
    assert stack.result("results/twice.png.png") == result
    has_its_result_and_no_report(stack, "twice.png", version)


@pytest.mark.slow
def test_a_duplicate_after_the_upload_was_deleted_leaves_no_report_beside_the_result(stack: Deployed) -> None:
    version = stack.upload("gone.png", disc(seed=301))
    first = stack.execution_of("gone.png", version)
    assert stack.wait(first).status == "SUCCEEDED"
    written = stack.result("results/gone.png.png"), stack.result("results/gone.png.png.json")
    stack.s3.delete_object(Bucket=stack.outputs["UploadsBucket"], Key="gone.png", VersionId=version)
    again = stack.wait(deliver_again(stack, first))
    assert (again.status, again.error) == ("FAILED", "SourceNotFoundError")
    assert (stack.result("results/gone.png.png"), stack.result("results/gone.png.png.json")) == written
    has_its_result_and_no_report(stack, "gone.png", version)


@pytest.mark.slow
def test_a_duplicate_during_the_first_execution_waits_for_its_result(stack: Deployed) -> None:
    first, token, version = start_waiting(stack, "early.png", 302)
    again = deliver_again(stack, first)
    until(lambda: "WaitForOwner" in stack.states_of(again))
    stack.sfn.send_task_failure(taskToken=token, error="WorkerCrashedError", cause="{}")
    ended = [stack.wait(first), stack.wait(again)]
    assert [each.status for each in ended] == ["SUCCEEDED", "SUCCEEDED"]
    assert ["SegmentOnLambda" in each.states for each in ended] == [True, False]
    has_its_result_and_no_report(stack, "early.png", version)


@pytest.mark.slow
def test_a_duplicate_that_fails_before_the_first_succeeds_leaves_no_report(stack: Deployed) -> None:
    first, token, version = start_waiting(stack, "rival.png", 303)
    stack.crashes.of.add(("ValidateFunction", "rival-again"))
    assert stack.wait(deliver_again(stack, first, "rival-again")).error == "Runtime.ExitError"
    assert stack.is_reported("rival.png"), "as long as there is no result"
    stack.sfn.send_task_failure(taskToken=token, error="WorkerCrashedError", cause="{}")
    assert stack.wait(first).status == "SUCCEEDED"
    has_its_result_and_no_report(stack, "rival.png", version)


def start_waiting(stack: Deployed, key: str, seed: int) -> tuple[str, str, str]:
    """Upload a picture that waits for a worker; return its execution, the task token and its version."""
    version = stack.upload(key, disc(seed=seed), {"pbr-segmentation-host": "ecs"})
    execution = stack.execution_of(key, version)
    return execution, stack.receive_token(), version


@pytest.mark.slow
def test_starting_an_execution_twice_with_one_name_starts_one(stack: Deployed) -> None:
    stack.s3.put_object(Bucket=stack.outputs["UploadsBucket"], Key="backgrounds/named.png", Body=disc(seed=304))
    source = {"bucket": stack.outputs["UploadsBucket"], "key": "backgrounds/named.png"}
    request = {
        "stateMachineArn": stack.outputs["StateMachineArn"],
        "name": "job-4711",
        "input": json.dumps({"source": source, "options": {"segmentation_host": "ecs"}}),
    }
    started = [stack.sfn.start_execution(**request) for _ in range(3)]
    assert len({(each["executionArn"], each["startDate"]) for each in started}) == 1
    stack.sfn.send_task_failure(taskToken=stack.receive_token(), error="WorkerCrashedError", cause="{}")
    assert stack.wait(started[0]["executionArn"]).status == "SUCCEEDED"
    for late in (request, {**request, "input": "{}"}):
        with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
            stack.sfn.start_execution(**late)


# ---- attempts


@pytest.mark.slow
def test_every_function_run_again_writes_the_same_bytes_under_the_same_keys(stack: Deployed) -> None:
    good = stack.process("attempts/good.png", disc(seed=305))
    bad = stack.process("attempts/bad.png", b"no picture")
    assert (good.status, bad.status) == ("SUCCEEDED", "FAILED")
    calls = {call["FunctionName"]: call["Payload"] for ended in (bad, good) for call in invocations(ended)}
    assert len(calls) == len({"Validate", "Segment", "Refine", "Encode", "RecordFailure", "PublishMetrics"})
    for function, payload in calls.items():
        before = written(stack)
        invoke(stack, function, payload)
        assert written(stack) == before, function


@pytest.mark.slow
def test_stages_that_run_after_the_upload_was_deleted_report_it(stack: Deployed) -> None:
    version = stack.upload("attempts/deleted.png", disc(seed=311))
    ended = stack.wait(stack.execution_of("attempts/deleted.png", version))
    stack.s3.delete_object(Bucket=stack.outputs["UploadsBucket"], Key="attempts/deleted.png", VersionId=version)
    endpoint, region = stack.cloud.endpoint_url, stack.cloud.region
    functions, runtime = client("lambda", endpoint, region), client("sagemaker-runtime", endpoint, region)
    payloads = {
        name: (call["FunctionName"], json.dumps(call["Payload"]))
        for call in invocations(ended)
        for name in ("SegmentFunction", "RefineFunction", "EncodeFunction")
        if name in call["FunctionName"]
    }
    assert len(payloads) == 3
    for function, payload in payloads.values():
        answer = functions.invoke(FunctionName=function, Payload=payload)
        assert json.loads(answer["Payload"].read())["errorType"] == "SourceNotFoundError", function
    [deployed] = client("sagemaker", endpoint, region).list_endpoints()["Endpoints"]
    with pytest.raises(ClientError, match="SourceNotFoundError"):
        runtime.invoke_endpoint(
            EndpointName=deployed["EndpointName"],
            Body=payloads["SegmentFunction"][1],
            ContentType="application/json",
        )


@pytest.mark.parametrize(
    ("key", "error"),
    [("known/text.png", "UnsupportedFormatError"), ("known/blank.png", "UnknownForegroundError")],
)
@pytest.mark.slow
def test_reconcile_does_not_report_a_recorded_failure_again(stack: Deployed, key: str, error: str) -> None:
    data = b"no picture" if "text" in key else file_of(Image.new("RGB", (80, 80), "white"), "PNG")
    execution = stack.execution_of(key, stack.upload(key, data))
    assert stack.wait(execution).error == error
    before = stack.report(key)
    described = stack.sfn.describe_execution(executionArn=execution)
    detail = {name: described[name] for name in ("executionArn", "stateMachineArn", "name", "status")}
    detail["startDate"] = int(described["startDate"].timestamp() * 1000)
    assert invoke(stack, stack.outputs["ReconcileFunctionArn"], {"detail": detail})["report_key"] is None
    assert stack.report(key) == before


def invoke(stack: Deployed, function: str, payload: Any) -> Any:
    """Call a function and return its answer."""
    functions = client("lambda", stack.cloud.endpoint_url, stack.cloud.region)
    answer = functions.invoke(FunctionName=function, Payload=json.dumps(payload))
    assert "FunctionError" not in answer
    return json.loads(answer["Payload"].read())


def invocations(ended: Ended) -> list[dict[str, Any]]:
    """Return the parameters of an execution's Lambda invocations."""
    scheduled = [e["taskScheduledEventDetails"] for e in ended.events if "taskScheduledEventDetails" in e]
    return [json.loads(details["parameters"]) for details in scheduled if details["resourceType"] == "lambda"]


def written(stack: Deployed) -> dict[str, Any]:
    """Return intermediates, results, reports by their keys, without the facts of a single attempt in sidecars."""
    objects: dict[str, Any] = {}
    for bucket in (stack.outputs["WorkBucket"], stack.outputs["ResultsBucket"]):
        for page in stack.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for listed in page.get("Contents", []):
                key = listed["Key"]
                if bucket == stack.outputs["ResultsBucket"] and "/attempts/" not in key:
                    continue
                objects[key] = stack.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                if key.startswith("results/") and key.endswith(".json"):
                    objects[key] = json.loads(objects[key])
                    del objects[key]["timings_s"], objects[key]["result"]["version_id"]
    return objects


# ---- answers


@pytest.mark.slow
def test_an_answer_to_an_earlier_attempt_does_not_answer_the_next(stack: Deployed) -> None:
    execution, first, version = start_waiting(stack, "attempt.png", 306)
    stack.sfn.send_task_failure(taskToken=first, error="StorageUnavailableError", cause="{}")
    second = stack.receive_token()
    assert second != first
    TaskTokens(stack.sfn).success(first, WRONG)
    assert TaskTokens(stack.sfn).heartbeat(first) is False and TaskTokens(stack.sfn).heartbeat(second) is True
    stack.sfn.send_task_failure(taskToken=second, error="WorkerCrashedError", cause="{}")
    assert stack.wait(execution).status == "SUCCEEDED"
    has_its_result_and_no_report(stack, "attempt.png", version)


@pytest.mark.slow
def test_the_first_of_two_answers_counts(stack: Deployed) -> None:
    execution, token, version = start_waiting(stack, "double.png", 307)
    answers = TaskTokens(stack.sfn)
    answers.failure(token, RuntimeError("the worker's own"))
    answers.success(token, WRONG)
    ended = stack.wait(execution)
    assert ended.status == "SUCCEEDED" and ended.output["model"]["host"] == "lambda"
    has_its_result_and_no_report(stack, "double.png", version)


@pytest.mark.slow
def test_an_answer_after_the_fallback_to_lambda_changes_nothing(stack: Deployed) -> None:
    execution, token, version = start_waiting(stack, "stood-in.png", 308)
    answers = TaskTokens(stack.sfn)
    answers.failure(token, RuntimeError("the worker's own"))
    assert stack.wait(execution).status == "SUCCEEDED"
    result = stack.result("results/stood-in.png.png"), stack.result("results/stood-in.png.png.json")
    answers.success(token, WRONG)
    answers.failure(token, RuntimeError("once more"))
    assert answers.heartbeat(token) is False
    assert (stack.result("results/stood-in.png.png"), stack.result("results/stood-in.png.png.json")) == result
    has_its_result_and_no_report(stack, "stood-in.png", version)


@pytest.mark.slow
def test_an_answer_after_the_heartbeat_timed_out_changes_nothing(stack: Deployed) -> None:
    machine = impatient_machine(stack)
    stack.s3.put_object(Bucket=stack.outputs["UploadsBucket"], Key="backgrounds/late.png", Body=disc(seed=309))
    source = {"bucket": stack.outputs["UploadsBucket"], "key": "backgrounds/late.png"}
    execution = stack.sfn.start_execution(
        stateMachineArn=machine, input=json.dumps({"source": source, "options": {"segmentation_host": "ecs"}})
    )["executionArn"]
    token = stack.receive_token()
    ended = stack.wait(execution)
    assert ended.status == "SUCCEEDED", ended.cause
    assert ended.output["degraded"] and any("HeartbeatTimeout" in warning for warning in ended.output["warnings"])
    TaskTokens(stack.sfn).success(token, WRONG)
    assert stack.wait(execution).output == ended.output


def impatient_machine(stack: Deployed) -> str:
    """Create the deployed machine once more, with a heartbeat of a second, and return its ARN."""
    deployed = stack.sfn.describe_state_machine(stateMachineArn=stack.outputs["StateMachineArn"])
    definition = json.loads(deployed["definition"])
    definition["States"]["SegmentOnEcs"]["HeartbeatSeconds"] = 1
    return stack.sfn.create_state_machine(
        name="Impatient", definition=json.dumps(definition), roleArn=deployed["roleArn"]
    )["stateMachineArn"]


@pytest.mark.slow
def test_an_answer_after_the_execution_was_stopped_leaves_its_report(stack: Deployed) -> None:
    execution, token, _ = start_waiting(stack, "stopped.png", 310)
    stack.sfn.stop_execution(executionArn=execution)
    until(lambda: stack.is_reported("stopped.png"))
    TaskTokens(stack.sfn).success(token, WRONG)
    assert stack.wait(execution).status == "ABORTED"
    assert stack.is_reported("stopped.png")


@pytest.mark.slow
def test_a_message_that_two_workers_receive_is_answered_once_without_errors(stack: Deployed) -> None:
    line = Line(stack)
    executions, bodies = [], []
    for number in range(3):
        executions.append(line.start(f"both-{number}", disc(seed=number)))
        [message] = stack.sqs.receive_message(QueueUrl=line.queue_url, WaitTimeSeconds=20)["Messages"]
        stack.sqs.delete_message(QueueUrl=line.queue_url, ReceiptHandle=message["ReceiptHandle"])
        bodies.append(message["Body"])
    for body in bodies + bodies:
        stack.sqs.send_message(QueueUrl=line.queue_url, MessageBody=body)
    with ExitStack() as workers:
        both = [workers.enter_context(Process(line.environment())) for _ in range(2)]
        for execution in executions:
            line.succeeds(execution)
        until(line.is_empty)
        for worker in both:
            assert not any("Traceback" in warning for warning in worker.stop())
