"""The cases of MockConfigFile.json, run by the embedded engine, or by AWS Step Functions Local where there is one.

Step Functions Local reads the same file: start it with SFN_MOCK_CONFIG naming it, and run this module with
STEPFUNCTIONS_LOCAL_ENDPOINT set to its address.
"""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import yaml

from local.cloud import EmbeddedCloud
from tests.conftest import ROOT
from tests.integration.conftest import ENDED

MOCKS = ROOT / "statemachine/MockConfigFile.json"
START = ["Validate", "LookUpCache", "CacheHit?"]
CLAIMED = [*START, "ClaimWork", "ChooseSegmenter"]
REFINED = ["Refine", "Encode", "SaveCache", "PublishMetrics", "Outcome?", "Done"]
SERVED = ["ServeCached", "DescribeHit", "ComposeSidecar", "SaveSidecar", "PublishMetrics", "Outcome?", "Done"]
REPORTED = ["RecordFailure", "HoldsClaim?", "PublishMetrics", "Outcome?", "Failed"]

CASES = {
    "Processed": [*CLAIMED, "SegmentOnLambda", *REFINED],
    "ServedFromCache": [*START, *SERVED],
    "CachedResultExpired": [*START, "ServeCached", "TakeOverClaim", "ChooseSegmenter", "SegmentOnLambda", *REFINED],
    "WaitsForOwner": [*START, "CheckOwner", "OwnerAtWork?", "WaitForOwner", *START[1:], *SERVED],
    "LosesTheRace": [*START, "ClaimWork", "WaitForOwner", *START[1:], *SERVED],
    "OwnerGaveUp": [
        *START,
        *("CheckOwner", "OwnerAtWork?", "TakeOverClaim", "ChooseSegmenter", "SegmentOnLambda"),
        *REFINED,
    ],
    "SegmentedOnEcs": [*CLAIMED, "SegmentOnEcs", *REFINED],
    "NoWorkerAnswers": [*CLAIMED, "SegmentOnEcs", "SegmentOnLambda", *REFINED],
    "SegmentedOnSageMaker": [*CLAIMED, "SegmentOnSageMaker", *REFINED],
    "EndpointFails": [*CLAIMED, "SegmentOnSageMaker", "SegmentOnLambda", *REFINED],
    "RefineThrottledTwice": [*CLAIMED, "SegmentOnLambda", *REFINED],
    "NoSubject": [*CLAIMED, "SegmentOnLambda", *REPORTED[:2], "ReleaseClaim", *REPORTED[2:]],
    "NotAPicture": ["Validate", *REPORTED],
    "FailureCannotBeRecorded": ["Validate", "RecordFailure", "NameUnrecordedFailure", *REPORTED[1:]],
    "CacheCannotBeSaved": [*CLAIMED, "SegmentOnLambda", *REFINED],
    "MetricsFail": [*CLAIMED, "SegmentOnLambda", *REFINED],
}


class Engine:
    """A Step Functions that reads mocks."""

    def __init__(self, endpoint_url: str) -> None:
        self.sfn = boto3.session.Session().client(
            "stepfunctions",
            region_name="eu-west-1",
            endpoint_url=endpoint_url,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )

    def create(self, definition: str) -> str:
        role = "arn:aws:iam::123456789012:role/machine"
        created = self.sfn.create_state_machine(name="RemoveBackground", definition=definition, roleArn=role)
        return created["stateMachineArn"]

    def run(self, machine_arn: str, case: str) -> tuple[dict[str, Any], list[str]]:
        """Run one case; return the execution's description and the states it entered."""
        arn = self.sfn.start_execution(
            stateMachineArn=f"{machine_arn}#{case}", input='{"source": {"bucket": "uploads", "key": "a.jpg"}}'
        )["executionArn"]
        deadline = time.monotonic() + 60
        while (described := self.sfn.describe_execution(executionArn=arn))["status"] not in ENDED:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        events = self.sfn.get_execution_history(executionArn=arn, maxResults=1000)["events"]
        return described, [e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e]


def definition() -> str:
    """The definition with every substitution made: a mocked task calls nothing, so that any name does."""
    text = (ROOT / "statemachine/remove_background.asl.yaml").read_text()
    queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/queue"
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:stage"
    for stage in ("Validate", "Segment", "Refine", "Encode", "Metrics", "Failure"):
        text = text.replace(f"${{{stage}FunctionArn}}", arn)
    text = text.replace("${SegmentationQueueUrl}", queue)
    for name in ("CacheTable", "WorkBucket", "ResultsBucket", "SageMakerEndpointName"):
        text = text.replace(f"${{{name}}}", name.lower())
    assert "${" not in text
    return json.dumps(yaml.safe_load(text))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if endpoint_url := os.environ.get("STEPFUNCTIONS_LOCAL_ENDPOINT"):
        yield Engine(endpoint_url)
        return
    empty = tmp_path_factory.mktemp("mocked") / "template.yaml"
    empty.write_text(EMPTY_TEMPLATE)
    with EmbeddedCloud(empty, mock_config=MOCKS) as cloud:
        yield Engine(cloud.endpoint_url)


EMPTY_TEMPLATE = """
AWSTemplateFormatVersion: '2010-09-09'
Transform: AWS::Serverless-2016-10-31
Resources:
  Topic: {Type: AWS::SNS::Topic}
"""


@pytest.fixture(scope="module")
def machine_arn(engine: Engine) -> str:
    return engine.create(definition())


def test_every_case_of_the_file_is_expected_here() -> None:
    assert set(json.loads(MOCKS.read_text())["StateMachines"]["RemoveBackground"]["TestCases"]) == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_mocked_case_takes_its_way(engine: Engine, machine_arn: str, case: str) -> None:
    described, states = engine.run(machine_arn, case)
    assert states == CASES[case]
    assert described["status"] == ("FAILED" if states[-1] == "Failed" else "SUCCEEDED")


def test_a_failure_carries_the_recorded_error_into_the_console(engine: Engine, machine_arn: str) -> None:
    described, _ = engine.run(machine_arn, "NoSubject")
    assert (described["error"], described["cause"]) == ("UnknownForegroundError", "no subject")


def test_a_failure_that_cannot_be_recorded_still_names_stage_and_error(engine: Engine, machine_arn: str) -> None:
    described, _ = engine.run(machine_arn, "FailureCannotBeRecorded")
    assert described["error"] == "FailureNotRecordedError"
    assert "Validate" in described["cause"] and "UnsupportedFormatError" in described["cause"]


def test_a_hit_merges_this_execution_s_facts_over_the_cached_ones(engine: Engine, machine_arn: str) -> None:
    described, _ = engine.run(machine_arn, "ServedFromCache")
    output = json.loads(described["output"])
    assert output["quality"] == {"score": 0.9}
    assert output["cache"]["hit"] is True and output["result"]["key"] == "results/a.png"
