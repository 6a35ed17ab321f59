"""Functions run in AWS's Lambda runtime."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from tests.integration.embedded_cloud.services.testbed import client, invoke_directly, until

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


def test_a_function_runs_in_the_lambda_runtime(cloud: EmbeddedCloud) -> None:
    answer, failed = invoke_directly(cloud, "Echo", {"a": 1})
    assert not failed
    assert answer["event"] == {"a": 1}
    assert 0 < answer["remaining_ms"] <= 2000
    assert answer["arn"].endswith(f":function:{cloud.outputs['Echo']}")
    assert answer["environment"]["AWS_LAMBDA_FUNCTION_NAME"] == cloud.outputs["Echo"]


def test_a_function_gets_only_the_variables_of_the_template(cloud: EmbeddedCloud, monkeypatch: Any) -> None:
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


def test_calls_above_the_concurrency_limit_wait(cloud: EmbeddedCloud) -> None:
    count = 2 * (os.cpu_count() or 1) + 1
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: invoke_directly(cloud, "Sleep", {"seconds": 0.3}), range(count)))
    assert not any(failed for _, failed in answers)
    spans = sorted((answer["started"], answer["ended"]) for answer, _ in answers)
    assert spans[-1][0] >= min(ended for _, ended in spans)


def test_an_exception_is_reported_by_class_name_and_message(cloud: EmbeddedCloud) -> None:
    answer, failed = invoke_directly(cloud, "Raise")
    assert failed
    assert answer["errorType"] == "NoSubjectError"
    assert json.loads(answer["errorMessage"]) == {"field": "source.key"}


def test_a_function_is_stopped_at_its_timeout(cloud: EmbeddedCloud) -> None:
    answer, failed = invoke_directly(cloud, "Sleep", {"seconds": 60})
    assert failed
    assert answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"].endswith("Error: Task timed out after 2.00 seconds")


def test_an_exited_function_is_an_exit_error_and_is_restarted(cloud: EmbeddedCloud) -> None:
    for _ in range(2):
        answer, failed = invoke_directly(cloud, "Die")
        assert failed
        assert answer["errorType"] == "Runtime.ExitError"
        assert answer["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")


def test_a_failed_import_is_an_import_error(cloud: EmbeddedCloud) -> None:
    answer, failed = invoke_directly(cloud, "Broken")
    assert failed
    assert answer["errorType"] == "Runtime.ImportModuleError"
    assert "no_such_module" in answer["errorMessage"]


def test_output_is_written_to_the_log_group(cloud: EmbeddedCloud) -> None:
    invoke_directly(cloud, "Echo")
    logs = client(cloud, "logs")

    def lines() -> set[str]:
        events = logs.filter_log_events(logGroupName=cloud.outputs["Logs"])["events"]
        return {event["message"].split()[0] for event in events}

    until(lambda: {"START", "echo", "END", "REPORT"} <= lines())


def test_lambda_reports_duration_memory_and_why_an_invocation_ended(cloud: EmbeddedCloud) -> None:
    logs, group = client(cloud, "logs"), f"/aws/lambda/{cloud.outputs['Sleep']}"
    invoke_directly(cloud, "Sleep", {"seconds": 0.1})
    invoke_directly(cloud, "Sleep", {"seconds": 60})
    messages = [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]]
    reports = [dict(fact.split(": ") for fact in one.split("\t")) for one in messages if one.startswith("REPORT ")]
    done, stopped = reports[-2:]
    assert 100 <= float(done["Duration"].split()[0]) <= float(done["Billed Duration"].split()[0])
    assert "Status" not in done and stopped["Status"] == "timeout"
    assert 10 < int(done["Max Memory Used"].split()[0]) < 500
    [timed_out] = [one for one in messages if stopped["REPORT RequestId"] in one and "Task timed out" in one]
    assert timed_out.endswith(" Task timed out after 2.00 seconds")


def test_an_event_is_invoked_after_the_response_and_a_dry_run_not_at_all(cloud: EmbeddedCloud) -> None:
    functions, logs = client(cloud, "lambda"), client(cloud, "logs")

    def calls() -> int:
        return len(
            logs.filter_log_events(logGroupName=cloud.outputs["Logs"], filterPattern='"echo was called"')["events"]
        )

    before = calls()
    dry = functions.invoke(FunctionName=cloud.outputs["Echo"], InvocationType="DryRun")
    assert (dry["StatusCode"], "FunctionError" in dry) == (204, False)
    assert calls() == before
    accepted = functions.invoke(FunctionName=cloud.outputs["Echo"], InvocationType="Event", Payload="{}")
    assert (accepted["StatusCode"], accepted["Payload"].read()) == (202, b"")
    until(lambda: calls() == before + 1)


def test_a_deleted_log_group_is_created_again(cloud: EmbeddedCloud) -> None:
    logs, group = client(cloud, "logs"), f"/aws/lambda/{cloud.outputs['Sleep']}"
    invoke_directly(cloud, "Sleep", {"seconds": 0})
    logs.delete_log_group(logGroupName=group)
    _answer, failed = invoke_directly(cloud, "Sleep", {"seconds": 0})
    assert not failed
    [start] = logs.filter_log_events(logGroupName=group, filterPattern="START")["events"]
    assert start["message"].startswith("START RequestId: ")
