"""The project's stack on both engines: the embedded cloud, and the part of it that LocalStack can deploy."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.deploy import translate
from tests import conftest
from tests.conftest import ROOT
from tests.integration.state_machine.mocks import MOCK_FILE
from tests.localstack.engine import localstack
from tests.localstack.part import part

REGION: Final = "eu-west-1"
STACK: Final = EmbeddedCloud.stack_name
PARAMETERS: Final = {"SourceDays": "365", "ResultDays": "365", "ArchiveDays": "30"}
_DEPLOY_S: Final = 120.0


@dataclass(frozen=True)
class Account:
    """An account with the stack, on one of the engines.

    Attributes:
        endpoint_url: address of the engine.
        template: translated template of the stack.
        ids: physical by logical ID of the deployed resources.
    """

    endpoint_url: str
    template: Mapping[str, Any]
    ids: Mapping[str, str]

    def client(self, service: str) -> Any:
        """Return a boto3 client."""
        return conftest.client(service, self.endpoint_url, REGION)

    def deployed(self, resource_type: str) -> dict[str, dict[str, Any]]:
        """Return the deployed resources of a type: their properties in the template by logical ID."""
        resources = self.template["Resources"]
        return {name: resources[name]["Properties"] for name in self.ids if resources[name]["Type"] == resource_type}


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    return translate(ROOT / "template.yaml", PARAMETERS, REGION)


@pytest.fixture(scope="session")
def on_localstack(template: dict[str, Any]) -> Iterator[Account]:
    """LocalStack, where signatures are checked."""
    with localstack(MOCK_FILE) as endpoint_url:
        deploy(endpoint_url, part(template))
        yield account(endpoint_url, template)


@pytest.fixture(scope="session")
def on_embedded_cloud(template: dict[str, Any]) -> Iterator[Account]:
    with EmbeddedCloud(ROOT / "template.yaml", PARAMETERS, alarm_interval_s=None) as cloud:
        yield account(cloud.endpoint_url, template)


@pytest.fixture(scope="session", params=["on_localstack", "on_embedded_cloud"])
def aws(request: pytest.FixtureRequest) -> Account:
    """Each engine in turn: tests that use this fixture expect the same of both."""
    return request.getfixturevalue(request.param)


def deploy(endpoint_url: str, template: dict[str, Any]) -> None:
    """Create the stack from a template in a bucket: in a request, CloudFormation accepts 51,200 bytes."""
    s3, cloudformation = (conftest.client(service, endpoint_url, REGION) for service in ("s3", "cloudformation"))
    s3.create_bucket(Bucket="templates", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="templates", Key="template.json", Body=json.dumps(template).encode())
    url = f"{endpoint_url}/templates/template.json"
    parameters = [{"ParameterKey": name, "ParameterValue": value} for name, value in PARAMETERS.items()]
    cloudformation.create_stack(
        StackName=STACK, TemplateURL=url, Parameters=parameters, Capabilities=["CAPABILITY_IAM"]
    )
    deadline = time.monotonic() + _DEPLOY_S
    while (status := cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"]).endswith("PROGRESS"):
        assert time.monotonic() < deadline, "the deployment runs on"
        time.sleep(0.5)
    events = cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]
    assert status == "CREATE_COMPLETE", [event for event in events if "FAILED" in event["ResourceStatus"]]


def account(endpoint_url: str, template: dict[str, Any]) -> Account:
    """Return the account with the deployed stack."""
    cloudformation = conftest.client("cloudformation", endpoint_url, REGION)
    resources = cloudformation.describe_stack_resources(StackName=STACK)["StackResources"]
    ids = {
        found["LogicalResourceId"]: found["PhysicalResourceId"] for found in resources if "PhysicalResourceId" in found
    }
    return Account(endpoint_url, template, ids)
