"""The stack in China and GovCloud: ARNs, domains, and names of services that differ between partitions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from infrastructure.deployment.settings import check
from tests.conftest import ROOT
from tests.unit.template.physical import Physical
from tests.unit.template.test_limits import EVERYTHING
from tests.unit.template.test_template import PSEUDO, TEMPLATE, statements


class Place(NamedTuple):
    """A Region of a partition.

    Attributes:
        partition: of ARNs.
        region: its name.
        suffix: domain of its services.
        without: parameters without which a stack there has only types that exist there, see
            docs/how-to/choose-a-host.md.
    """

    partition: str
    region: str
    suffix: str
    without: Mapping[str, str]

    def stack(self) -> Physical:
        """Return a stack with all that this Region has."""
        pseudo = {"AWS::Partition": self.partition, "AWS::Region": self.region, "AWS::URLSuffix": self.suffix}
        values = {name: self._local(value) for name, value in EVERYTHING.items()}
        parameters = {**values, **self.without}
        check(parameters, ROOT)
        return Physical(parameters, TEMPLATE, {**PSEUDO, **pseudo})

    def _local(self, value: str) -> str:
        domain = value.replace("eu-west-1.amazonaws.com", f"{self.region}.{self.suffix}")
        return domain.replace("arn:aws:", f"arn:{self.partition}:").replace("eu-west-1", self.region)


NO_BUDGET: Final = {"MonthlyBudget": "0", "BudgetTag": ""}
NO_EDGE: Final = {"EdgeDomain": "", "EdgeSecretArn": "", "EdgeDistributionId": ""}
PLACES: Final = (
    Place("aws", "eu-west-1", "amazonaws.com", {}),
    Place("aws-cn", "cn-north-1", "amazonaws.com.cn", NO_EDGE),
    Place("aws-us-gov", "us-gov-west-1", "amazonaws.com", {**NO_BUDGET, **NO_EDGE}),
    Place("aws-us-gov", "us-gov-east-1", "amazonaws.com", {**NO_BUDGET, **NO_EDGE, "SageMakerImageUri": ""}),
)


@pytest.fixture(params=PLACES, ids=[place.region for place in PLACES], scope="module")
def place(request: pytest.FixtureRequest) -> Place:
    return Place(*request.param)


@pytest.fixture(scope="module")
def stack(place: Place) -> Physical:
    return place.stack()


def texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in a document, with the key under which it is."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from texts(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value, key)
    elif isinstance(node, str):
        yield key, node


def test_every_resource_type_exists_in_the_region(place: Place, stack: Physical) -> None:
    types = {resource["Type"] for resource in stack.resources.values()}
    assert types - set(PROVIDER_SCHEMA_MANAGER.get_resource_types(place.region)) == set()


def test_every_arn_is_in_the_partition(place: Place, stack: Physical) -> None:
    found = [text for _, text in texts([stack.resources, stack.outputs])]
    partitions = {name for text in found for name in re.findall(r"\barn:([\w-]*):", text)}
    assert partitions == {place.partition}


def test_every_address_is_in_the_domain_of_the_partition(place: Place, stack: Physical) -> None:
    found = [text for key, text in texts([stack.resources, stack.outputs]) if key not in {"Principal", "Service"}]
    domains = {name for text in found for name in re.findall(r"\.(amazonaws\.com(?:\.cn)?)\b", text)}
    assert domains == {place.suffix}


def test_ec2_has_a_principal_of_its_own_in_china(place: Place, stack: Physical) -> None:
    principals = {text for key, text in texts(stack.resources) if key == "Service"}
    assert {name for name in principals if name.startswith("ec2.")} == {f"ec2.{place.suffix}"}
    assert {name for name in principals if name.endswith(".cn")} <= {"ec2.amazonaws.com.cn"}


def test_an_execution_role_can_pull_its_image(place: Place, stack: Physical) -> None:
    roles = {"WorkerExecutionRole", "WebExecutionRole", "EndpointRole"} & stack.resources.keys()
    for role in roles:
        [pulled] = [s["Resource"] for s in statements(stack, role) if "ecr:BatchGetImage" in s["Action"]]
        repository = "repository/pictures/background-remover"
        assert pulled == f"arn:{place.partition}:ecr:{place.region}:123456789012:{repository}"
    for endpoint in {"EcrApiEndpoint", "EcrDkrEndpoint"} & stack.resources.keys():
        allowed = [
            s["Resource"] for s in stack[endpoint]["PolicyDocument"]["Statement"] if "ecr:BatchGetImage" in s["Action"]
        ]
        assert allowed == [pulled]


IN_CHINA: Final = {"ecr.api", "ecr.dkr", "sqs", "states"}
"""Services whose endpoints have names that begin with cn, as aws ec2 describe-vpc-endpoint-services says."""


def test_endpoints_have_the_names_of_the_partition(place: Place, stack: Physical) -> None:
    for endpoint in stack.of_type("AWS::EC2::VPCEndpoint"):
        prefix, _, service = endpoint["ServiceName"].partition(f".{place.region}.")
        in_china = place.partition == "aws-cn" and service in IN_CHINA
        assert prefix == ("cn.com.amazonaws" if in_china else "com.amazonaws"), service
