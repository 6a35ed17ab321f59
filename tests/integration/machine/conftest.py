"""The project's own template, deployed once for all tests of this folder, and a few verbs to use it with."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from local.cloud import EmbeddedCloud
from tests.conftest import ROOT, client
from tests.integration.machine.mocks import all_mocks

ENDED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}


@dataclass(frozen=True)
class Ended:
    """An execution that has ended: its description, its output, and the names of the states it entered."""

    status: str
    error: str | None
    cause: str | None
    output: dict[str, Any]
    states: list[str]
    events: list[dict[str, Any]]


class Deployed:
    """A deployed stack, as a user has it."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self.cloud, self.outputs = cloud, cloud.outputs
        self.s3, self.sfn, self.dynamodb, self.sqs, self.sns = (
            client(service, cloud.endpoint_url, cloud.region)
            for service in ("s3", "stepfunctions", "dynamodb", "sqs", "sns")
        )

    def upload(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> str:
        """Put an object and return its version."""
        return self.s3.put_object(
            Bucket=self.outputs["UploadsBucket"], Key=key, Body=data, Metadata=dict(metadata or {})
        )["VersionId"]

    def start(self, source: dict[str, Any], **options: Any) -> str:
        """Start an execution by hand and return its ARN."""
        return self.sfn.start_execution(
            stateMachineArn=self.outputs["StateMachineArn"], input=json.dumps({"source": source, "options": options})
        )["executionArn"]

    def execution_of(self, key: str, version: str, *, timeout_s: float = 20) -> str:
        """Return the ARN of the execution that the upload's event started."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for execution in self.sfn.list_executions(stateMachineArn=self.outputs["StateMachineArn"])["executions"]:
                described = self.sfn.describe_execution(executionArn=execution["executionArn"])
                detail = json.loads(described["input"]).get("detail", {})
                if detail.get("object", {}).get("key") == key and detail["object"]["version-id"] == version:
                    return execution["executionArn"]
            time.sleep(0.1)
        raise TimeoutError(f"no execution for {key}")

    def wait(self, execution_arn: str, *, timeout_s: float = 120) -> Ended:
        """Wait until an execution ends."""
        deadline = time.monotonic() + timeout_s
        while (described := self.sfn.describe_execution(executionArn=execution_arn))["status"] not in ENDED:
            assert time.monotonic() < deadline, f"{execution_arn} runs on"
            time.sleep(0.05)
        events = [
            event
            for page in self.sfn.get_paginator("get_execution_history").paginate(executionArn=execution_arn)
            for event in page["events"]
        ]
        return Ended(
            status=described["status"],
            error=described.get("error"),
            cause=described.get("cause"),
            output=json.loads(described.get("output", "{}")),
            states=[e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e],
            events=events,
        )

    def process(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> Ended:
        """Upload, and wait for what the event started."""
        return self.wait(self.execution_of(key, self.upload(key, data, metadata)))

    def result(self, key: str) -> bytes:
        """Read an object of the results bucket."""
        return self.s3.get_object(Bucket=self.outputs["ResultsBucket"], Key=key)["Body"].read()

    def report(self, source_key: str) -> dict[str, Any]:
        """Read the report of a failure."""
        return json.loads(self.result(f"failed/{source_key}.json"))

    def cached(self) -> list[dict[str, Any]]:
        """Read the whole cache table."""
        return self.dynamodb.scan(TableName=self.outputs["CacheTable"], ConsistentRead=True)["Items"]


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """All three hosts of segmentation, the segmenter that needs no weights, and the mocks for who names a case."""
    mocks = tmp_path_factory.mktemp("mocks") / "MockConfigFile.json"
    mocks.write_text(json.dumps(all_mocks()))
    parameters = {
        "DefaultModel": "classical",
        "WorkerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
        "WorkerSubnets": "subnet-0a1b2c3d",
        "WorkerSecurityGroups": "sg-0a1b2c3d",
        "SageMakerImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/background-remover:1",
    }
    with EmbeddedCloud(ROOT / "template.yaml", parameters, mock_config=mocks) as cloud:
        yield Deployed(cloud)
